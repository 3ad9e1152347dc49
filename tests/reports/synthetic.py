"""Synthetic stores with known numbers, written with plain MLflow client calls, and a small registry for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

REGISTRY = """
[experiments."5M-baseline"]
description = "the small model"
family = "5M"
expected = { peak_reward = [1200.0, 1200.0], stability = "high", hours = [3.0, 4.0], confidence = "high" }
world_model = { kind = "mlp", units = [512, 512], encoder_units = [256], latent_dim = 512 }
train = { max_epochs = 15000 }

[experiments."48M-flow-v2"]
aliases = ["flow-v2"]
description = "the flow"
family = "48M"
expected = { peak_reward = [1200.0, 1400.0], stability = "high" }
train = { max_epochs = 20000 }
[experiments."48M-flow-v2".world_model]
kind = "flow"
units = [1792, 1792]
encoder_units = [1792, 1792, 1792]
latent_dim = 768
integrator = "heun"
substeps = 4

[experiments.idle]
extends = "5M-baseline"
description = "never run"

[groups.size]
question = "Does the flow help?"
members = ["5M-baseline", "48M-flow-v2"]
varies = ["world_model", "train.max_epochs"]

[references.pwm]
kind = "published"
title = "PWM"
source = "arXiv 2407.02466"
seeds = 5
final_reward = 9546.0
final_range = [8210.0, 10629.0]
curves = "PWM"

[references.earlier-5M]
kind = "earlier"
title = "5M baseline"
source = "earlier logs"
experiment = "5M-baseline"
peak_reward = 1222.0
last100_reward = 30.0
"""

STEPS = 2048  # real environment steps between two points
START = 1_700_000_000_000  # ms


def write_registry(folder: Path) -> Path:
    """The registry above as a file."""
    path = folder / "experiments.toml"
    path.write_text(REGISTRY)
    return path


def make_database(folder: Path) -> Path:
    """An MLflow database without experiments."""
    from mlflow import MlflowClient

    path = folder / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


class SyntheticStore:
    """A sqlite store in `folder`; every run starts at START and logs one point per second."""

    def __init__(self, folder: Path) -> None:
        from mlflow import MlflowClient

        self.uri = f"sqlite:///{folder / 'mlflow.db'}"
        self.client = MlflowClient(tracking_uri=self.uri)
        self.experiment = self.client.create_experiment("flowmbpo", artifact_location=f"file://{folder / 'artifacts'}")

    def run(
        self,
        name: str,
        seed: int,
        rewards: Sequence[float],
        *,
        evaluations: Mapping[int, float] | None = None,
        metrics: Mapping[str, Sequence[float]] | None = None,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        status: str | None = "FINISHED",
    ) -> str:
        """One run: `rewards` point by point, `evaluations` R by the index of a point. Returns the run id."""
        from mlflow.entities import Metric, Param, RunTag

        run = self.client.create_run(
            self.experiment,
            start_time=START,
            run_name=f"{name}/seed-{seed}",
            tags={"flowmbpo.name": name, "flowmbpo.seed": str(seed), **(tags or {})},
        ).info.run_id

        def points(key: str, values: Mapping[int, float]) -> list[Metric]:
            return [Metric(key, v, START + 1000 * (i + 1), STEPS * (i + 1)) for i, v in values.items()]

        logged = points("train/episode_reward", dict(enumerate(rewards)))
        logged += points("eval/mean_reward", evaluations or {})
        for key, values in (metrics or {}).items():
            logged += points(key, dict(enumerate(values)))
        for start in range(0, len(logged), 1000):
            self.client.log_batch(run, metrics=logged[start : start + 1000])
        self.client.log_batch(
            run,
            params=[Param(key, value) for key, value in (params or {}).items()],
            tags=[RunTag("flowmbpo.device", (tags or {}).get("flowmbpo.device", "cpu"))],
        )
        if status:
            self.client.set_terminated(run, status, START + 1000 * (len(rewards) + 1))
        return run
