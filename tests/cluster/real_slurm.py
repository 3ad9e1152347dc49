"""flowmbpo on a real Slurm of one node, as a user of the cluster calls it."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from flowmbpo.cluster.submission import TaskState, submissions
from flowmbpo.tracking.reader import open_reader
from flowmbpo.tracking.records import RunRecord
from flowmbpo.tracking.store import resolve_store
from tests.command import Outcome, environment, run_process

SCRIPT = Path(__file__).with_name("slurm.sh")
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scontrol")
REGISTRY = """
[experiments.tiny]
abstract = true
env = { kind = "pointmass", episode_length = 20 }
actor = { units = [16] }
critic = { units = [16], passes = 1, minibatches = 1 }
evaluation = { episodes = 4, interval = 1_000_000 }
resources = { gpu = "", gpus = 0, cpus = 1, memory_gb = 8, time_limit = "0:10:00" }
world_model = { kind = "mlp", units = [16], encoder_units = [16], latent_dim = 16 }

[experiments.tiny.train]
num_envs = 4
wm_batch_size = 8
wm_updates = 1
wm_first_updates = 2
horizon = 16
max_epochs = 20
replay_capacity = 2_000
checkpoint_interval = 1_000_000
log_interval = 5

[experiments.tiny-mlp]
extends = "tiny"

[experiments.tiny-flow]
extends = "tiny"
world_model = { kind = "flow", units = [16], encoder_units = [16], latent_dim = 16, integrator = "euler", substeps = 1 }
"""
LOG_INTERVAL = 5
PACE = """
import sys, time
if {{"run", "sweep"}} & {{*sys.orig_argv}}:
    from flowmbpo.training.trainer import Trainer
    begin = Trainer._run_epoch
    Trainer._run_epoch = lambda self: (time.sleep({seconds}), begin(self))[1]
"""


class Cluster:
    """flowmbpo in an empty directory, as a user of the cluster calls it."""

    def __init__(self, directory: Path, conf: Path, here: Callable[..., Outcome]) -> None:
        self.directory = directory
        self.here = here  # runs a command in this process
        self.environment = environment() | {"SLURM_CONF": str(conf), "XDG_CONFIG_HOME": str(directory)}

    def flowmbpo(self, *arguments: str, code: int = 0) -> str:
        done = run_process(*arguments, folder=self.directory, code=code, only=self.environment)
        return done.text if code else done.out

    def program(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env=self.environment, cwd=self.directory
        )

    def submit(self, *arguments: str) -> list[dict[str, Any]]:
        return json.loads(self.flowmbpo("submit", *arguments, "--json"))

    def jobs(self) -> dict[str, dict[str, Any]]:
        """A process for each of the many looks would take a third of the machine from what is looked at."""
        with contextlib.chdir(self.directory), mock.patch.dict(os.environ, self.environment, clear=True):
            done = self.here("jobs", "--json")
        assert done.code == 0, done.text
        return {row["job"]: row for row in done.json()}

    def until(self, condition: Callable[[dict[str, dict[str, Any]]], bool], minutes: float = 10) -> dict[str, Any]:
        """Look at the table until it satisfies the condition; returns it."""
        deadline = time.monotonic() + 60 * minutes
        while not condition(table := self.jobs()):
            if time.monotonic() > deadline:
                logs = "\n".join(path.read_text() for path in self.directory.glob("runs/jobs/*/*.out"))
                pytest.fail(f"not within {minutes} minutes: {json.dumps(table, indent=1)}\n{logs[-5000:]}")
            time.sleep(2)
        return table

    def runs(self) -> dict[str, RunRecord]:
        return {run.run_id: run for run in open_reader(resolve_store(None, self.directory)).runs()}

    def pace(self, seconds: float) -> None:
        """From here on an epoch takes at least this long on any machine: a test knows which limit is too short."""
        (self.directory / "pace").mkdir()
        (self.directory / "pace" / "sitecustomize.py").write_text(PACE.format(seconds=seconds))
        self.environment["PYTHONPATH"] = str(self.directory / "pace")

    def state(self) -> TaskState:
        """The task of the only submission."""
        return submissions(self.directory / "runs" / "jobs")[-1].tasks[0].state

    def clear(self) -> None:
        """Nothing of one test is in the way of the next."""
        self.program("scancel", f"--user={getpass.getuser()}")
        deadline = time.monotonic() + 60
        while self.program("squeue", "--noheader").stdout and time.monotonic() < deadline:
            time.sleep(0.5)

    def start_now(self, job: str) -> None:
        """Slurm waits two minutes before it starts a requeued job; the tests need not. In the second in which it was
        requeued, though, its credential is revoked, and a job that starts then is killed."""
        time.sleep(2)
        self.program("scontrol", "update", f"JobId={job}", "StartTime=now")


ACTIVE = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING")


def ended(table: dict[str, dict[str, Any]]) -> bool:
    return bool(table) and all(row["state"] not in ACTIVE for row in table.values())
