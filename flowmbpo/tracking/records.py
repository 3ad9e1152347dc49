"""What is read from a store: frozen records of runs and checkpoints, the same for every kind of store.

Runs written by plain MLflow calls count too: what a tag does not say is taken from the run's name, its params and the
steps of its metrics. Not here: where records come from (`sqlite_reader`, `mlflow_reader`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from flowmbpo.data_types import Document
from flowmbpo.runs.journal import PHASE_TAG, TARGET_TAG, RunStatus
from flowmbpo.tracking.metrics import ENV_STEPS_PER_SECOND, EPISODE_REWARD, EPOCH, EPOCH_SECONDS, EVALUATED_REWARD

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

RUN_ID_TAG = "flowmbpo.run_id"
SWEEP_TAG = "flowmbpo.sweep"  # of the run in which the trials of a search are nested
CHECKPOINT_TAG = "flowmbpo.checkpoint"
PATH_TAG = "flowmbpo.path"
EVALUATION_TAG = "flowmbpo.evaluation"  # how a checkpoint was evaluated: code version, seed, episodes, as JSON
RATING_TAG = "flowmbpo.rating"  # of a checkpoint
NOTE_TAG = "mlflow.note.content"  # MLflow's own description of a run
USABLE_TAG, WHY_TAG = "usable", "usable.why"
ORIGIN_TAG = "flowmbpo.origin"  # of an imported run
_OUR_TAGS = ("flowmbpo.", "mlflow.")


@dataclass(frozen=True)
class Latest:
    """The newest point of a metric: value, real environment steps, Unix time in seconds."""

    value: float
    step: int
    time: float


@dataclass(frozen=True)
class RunRecord:
    """One run. `run_id` is the id that flowmbpo shows, `mlflow_run_id` MLflow's own; times are Unix seconds."""

    run_id: str
    mlflow_run_id: str
    experiment_id: str
    run_name: str
    status: RunStatus
    start_time: float
    end_time: float | None
    params: Mapping[str, str] = field(repr=False)
    tags: Mapping[str, str] = field(repr=False)
    metrics: Mapping[str, Latest] = field(repr=False)

    @property
    def name(self) -> str:
        """The experiment's name in the registry."""
        return self.tags.get("flowmbpo.name") or self.run_name.rpartition("/seed-")[0] or self.run_name

    @property
    def seed(self) -> int | None:
        text = self.tags.get("flowmbpo.seed") or self.run_name.rpartition("/seed-")[2]
        return int(text) if text.isdigit() else None

    @property
    def note(self) -> str:
        """What the user wrote about the run."""
        return self.tags.get(NOTE_TAG, "")

    @property
    def user_tags(self) -> dict[str, str]:
        """The tags that the user gave."""
        return {key: value for key, value in sorted(self.tags.items()) if not key.startswith(_OUR_TAGS)}

    @property
    def set_aside(self) -> bool:
        """Whether no comparison shall count the run."""
        return self.tags.get(USABLE_TAG) == "no"

    @property
    def origin(self) -> str:
        """Where an imported run comes from; empty for our own."""
        return self.tags.get(ORIGIN_TAG, "")

    @property
    def env_steps(self) -> int:
        """Real environment steps so far: the largest step of what training logged."""
        return max((point.step for name, point in self.metrics.items() if name.startswith("train/")), default=0)

    @property
    def episode_reward(self) -> float | None:
        """R of training, newest point."""
        return self.value(EPISODE_REWARD)

    @property
    def max_epochs(self) -> int | None:
        """The epoch that the run shall reach: that of its spec unless it was told to stop earlier."""
        return number(self.tags.get(TARGET_TAG)) or self.whole_param("train.max_epochs")

    @property
    def epoch(self) -> int | None:
        """Epochs finished; from the environment steps where the run does not say."""
        if (epoch := self.value(EPOCH)) is not None and math.isfinite(epoch):
            return int(epoch)
        per_epoch = (self.whole_param("train.num_envs") or 0) * (self.whole_param("train.horizon") or 0)
        return self.env_steps // per_epoch if per_epoch else None

    @property
    def settled(self) -> bool:
        """Whether the newest point is of epochs after the model's many first updates, like all that are to come."""
        first = max(self.whole_param(f"train.{key}") or 1 for key in ("warmup_epochs", "wm_first_epoch"))
        return (self.epoch or 0) >= first + (self.whole_param("train.log_interval") or 0)

    @property
    def phase(self) -> str:
        """How far a long part of the present epoch is; empty where none runs."""
        return self.tags.get(PHASE_TAG, "") if self.status == "RUNNING" else ""

    @property
    def eta_seconds(self) -> float | None:
        """Time until the last epoch at the present speed; None where that is not known yet or nothing runs."""
        if self.status != "RUNNING" or self.epoch is None or self.max_epochs is None or not self.settled:
            return None
        left = max(0, self.max_epochs - self.epoch)
        if seconds := self.value(EPOCH_SECONDS):
            return left * seconds
        speed = self.value(ENV_STEPS_PER_SECOND)
        if speed and self.epoch:
            return left * self.env_steps / self.epoch / speed
        return None

    @property
    def wall_seconds(self) -> float | None:
        """From start to end, or to the newest point while the run is not over."""
        newest = self.end_time or max((point.time for point in self.metrics.values()), default=None)
        if newest is None or (self.origin and newest <= self.start_time):
            return None  # an imported run whose log has no clock
        return max(0.0, newest - self.start_time)

    def value(self, metric: str) -> float | None:
        """Newest value of a metric."""
        point = self.metrics.get(metric)
        return None if point is None else point.value

    def whole_param(self, name: str) -> int | None:
        """A param that is a whole number; None where it is missing or something else."""
        return number(self.params.get(name))

    def document(self) -> Document:
        """What `--json` shows of it."""
        return {
            "run_id": self.run_id,
            "name": self.name,
            "seed": self.seed,
            "status": self.status,
            "epoch": self.epoch,
            "max_epochs": self.max_epochs,
            "env_steps": self.env_steps,
            "episode_reward": self.episode_reward,
            "eval_reward": self.value(EVALUATED_REWARD),
            "env_steps_per_second": self.value(ENV_STEPS_PER_SECOND),
            "eta_seconds": self.eta_seconds,
            "start_time": self.start_time,
            "wall_seconds": self.wall_seconds,
            "host": self.tags.get("flowmbpo.host"),
            "slurm_job_id": self.tags.get("flowmbpo.slurm_job_id"),
            "origin": self.origin or None,
            "note": self.note or None,
            "tags": self.user_tags,
        }


@dataclass(frozen=True)
class CheckpointRecord:
    """One checkpoint (an MLflow logged model). `artifacts` is where MLflow keeps it; its newest evaluation counts."""

    run_id: str
    model_id: str
    name: str
    artifacts: str
    created: float
    params: Mapping[str, str] = field(repr=False)
    tags: Mapping[str, str] = field(repr=False)
    metrics: Mapping[str, float] = field(repr=False)

    @property
    def epoch(self) -> int | None:
        return number(self.params.get("epoch") or self.tags.get("flowmbpo.epoch") or self.tags.get("epoch"))

    @property
    def env_steps(self) -> int | None:
        return number(self.params.get("env_steps") or self.tags.get("flowmbpo.env_steps"))

    @property
    def path(self) -> str:
        """Where the run wrote it; empty where it does not say."""
        return self.tags.get(PATH_TAG, "")

    @property
    def mean_reward(self) -> float | None:
        """R by the newest evaluation; None where it was not evaluated."""
        return self.metrics.get("eval/mean_reward")

    @property
    def rating(self) -> float | None:
        """R by training's own evaluation, which chooses the best checkpoint; the newest where that was not kept."""
        try:
            return float(self.tags[RATING_TAG])
        except (KeyError, ValueError):
            return self.mean_reward


def number(text: str | None) -> int | None:
    """A whole number in a param or tag, or None."""
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None


def batches(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Parts of at most `size` values."""
    return (values[start : start + size] for start in range(0, len(values), size))


def curves_frame(rows: Sequence[tuple[str, str, int, float, float | None]], ids: Mapping[str, str]) -> pd.DataFrame:
    """The frame of `Reader.curves` from rows (MLflow run id, metric, step, time in ms, value)."""
    import pandas as pd

    frame = pd.DataFrame(rows, columns=["run_id", "metric", "step", "time", "value"])
    frame = frame.astype({"step": "int64", "time": "float64", "value": "float64"})
    frame["run_id"] = frame["run_id"].map(dict(ids)).astype("category")
    frame["metric"] = frame["metric"].astype("category")
    frame["time"] /= 1000
    frame = frame.sort_values(["run_id", "metric", "step", "time"], kind="stable", ignore_index=True)
    return frame.drop_duplicates(["run_id", "metric", "step"], keep="last", ignore_index=True)
