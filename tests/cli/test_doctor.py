"""`flowmbpo doctor`: each line good, bad with its cure, or not applicable."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.command import environment, run_process

REGISTRY = """
[experiments.tiny]
env = { kind = "pointmass", episode_length = 20 }
world_model = { kind = "mlp", units = [16], encoder_units = [16], latent_dim = 16 }
train = { horizon = 16, max_epochs = 20, num_envs = 4, wm_batch_size = 8, replay_capacity = 2000 }
"""


@pytest.fixture
def doctor(tmp_path: Path):
    """Checks by name, of `flowmbpo doctor` in an empty directory on a machine without Slurm."""
    (tmp_path / "experiments.toml").write_text(REGISTRY)

    def call(*arguments: str, code: int = 0, **variables: str) -> dict[str, dict[str, str]]:
        kept = {name: value for name, value in environment().items() if not name.startswith("SLURM")}
        surroundings = {**kept, "PATH": str(Path(sys.executable).parent), **variables}
        done = run_process("doctor", *arguments, "--json", folder=tmp_path, code=code, only=surroundings)
        return {check["name"]: check for check in done.json()}

    return call


def test_where_a_run_would_start(doctor, tmp_path):
    checks = doctor()
    assert {name: check["state"] for name, check in checks.items()} == {
        "registry": "good",
        "slurm": "not applicable",
        "python": "good",
        "torch": "good",
        "simulator": "not applicable",  # a point mass needs no Warp
        "disk": "good",
        "store": "good",
        "clock": "good",
    }
    assert not (tmp_path / "mlflow.db").exists()


def test_what_would_fail(doctor, tmp_path):
    """A device that is not there, a registry with a mistake, a damaged store and a package that cannot be loaded."""
    broken = tmp_path / "site" / "torch"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('libcudart.so.12: cannot open shared object file')")
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 100)
    (tmp_path / "experiments.toml").write_text(REGISTRY.replace("horizon", "horizont"))
    checks = doctor(code=1, PYTHONPATH=str(broken.parent))
    for name, found in {"torch": "libcudart", "store": "damaged", "registry": "problem"}.items():
        assert checks[name]["state"] == "bad"
        assert found in checks[name]["found"]
        assert checks[name]["fatal"]
    assert checks["torch"]["cure"]
    assert "flowmbpo validate" in checks["registry"]["cure"]


def test_a_server_that_is_away_costs_no_run(doctor):
    checks = doctor("--tracking-uri", "http://127.0.0.1:9")
    assert checks["store"]["state"] == "bad"
    assert "flowmbpo sync" in checks["store"]["cure"]
    assert checks["clock"]["state"] == "not applicable"


def test_a_slurm_that_does_not_answer_fails_no_run(doctor, tmp_path):
    """Nor a job of this machine's own queue, which asks the same."""
    for name in ("sbatch", "squeue", "sinfo"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'Unable to contact slurm controller' >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    checks = doctor(PATH=f"{tmp_path}:/usr/bin:/bin")
    assert checks["slurm"]["state"] == "bad"
    assert "controller" in checks["slurm"]["cure"]
    assert not checks["slurm"]["fatal"]
