"""Real training under a real Slurm of one node. `tests/cluster/slurm.sh install` (as root) makes these run; minutes."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flowmbpo.cluster.submission import TaskState, submissions
from flowmbpo.cluster.task import resumable_epoch
from flowmbpo.tracking.reader import open_reader
from flowmbpo.tracking.records import RunRecord
from flowmbpo.tracking.store import resolve_store

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(2400)]

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
if "run" in sys.orig_argv:
    from flowmbpo.training.trainer import Trainer
    begin = Trainer._run_epoch
    Trainer._run_epoch = lambda self: (time.sleep({seconds}), begin(self))[1]
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Configuration of a Slurm that runs for this module."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: run `{SCRIPT} install` as root")
    folder = tmp_path_factory.mktemp("slurm")
    started = subprocess.run([SCRIPT, "start", folder], capture_output=True, text=True, check=False)
    try:
        if started.returncode:
            pytest.skip(f"Slurm does not start on this machine: {started.stderr.strip()[-500:]}")
        yield folder / "slurm.conf"
    finally:
        environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        subprocess.run(["scancel", f"--user={getpass.getuser()}"], env=environment, check=False, timeout=60)
        subprocess.run([SCRIPT, "stop", folder], check=True)


class Cluster:
    """flowmbpo in an empty directory, as a user of the cluster calls it."""

    def __init__(self, directory: Path, conf: Path) -> None:
        self.directory = directory
        self.environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("FLOWMBPO", "MLFLOW"))
        }
        self.environment |= {"SLURM_CONF": str(conf), "OMP_NUM_THREADS": "1", "XDG_CONFIG_HOME": str(directory)}

    def flowmbpo(self, *arguments: str, code: int = 0) -> str:
        done = self.program(sys.executable, "-m", "flowmbpo", *arguments)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr if code else done.stdout

    def program(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env=self.environment, cwd=self.directory
        )

    def submit(self, *arguments: str) -> list[dict[str, Any]]:
        return json.loads(self.flowmbpo("submit", *arguments, "--json"))

    def jobs(self) -> dict[str, dict[str, Any]]:
        return {row["job"]: row for row in json.loads(self.flowmbpo("jobs", "--json"))}

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

    def record(self) -> TaskState:
        """The task of the only submission."""
        return submissions(self.directory / "runs" / "jobs")[-1].task(0)

    def start_now(self, job: str) -> None:
        """Slurm waits two minutes before it starts a requeued job; the tests need not."""
        self.program("scontrol", "update", f"JobId={job}", "StartTime=now")


@pytest.fixture
def cluster(tmp_path: Path, slurm: Path) -> Cluster:
    (tmp_path / "experiments.toml").write_text(REGISTRY)
    return Cluster(tmp_path, slurm)


ACTIVE = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING")


def ended(table: dict[str, dict[str, Any]]) -> bool:
    return bool(table) and all(row["state"] not in ACTIVE for row in table.values())


def test_two_experiments_by_two_seeds(cluster: Cluster):
    jobs = cluster.submit("tiny-mlp", "tiny-flow", "--seeds", "0,1")
    assert [job["name"] for job in jobs] == ["tiny-mlp", "tiny-flow"]
    table = cluster.until(ended)
    assert sorted(table) == sorted(task for job in jobs for task in job["tasks"])
    for row in table.values():
        assert (row["state"], row["run_status"], row["epoch"], row["restarts"]) == ("COMPLETED", "FINISHED", 20, 0), row
        assert row["note"] == ""
    runs = cluster.runs()
    assert sorted((run.name, run.seed) for run in runs.values()) == [
        (name, seed) for name in ("tiny-flow", "tiny-mlp") for seed in (0, 1)
    ]
    for task, row in table.items():
        tags = runs[row["run_id"]].tags
        array, index = task.split("_")
        assert tags["flowmbpo.job"] == task
        assert (tags["flowmbpo.slurm_array_job_id"], tags["flowmbpo.slurm_array_task_id"]) == (array, index)
        assert tags["flowmbpo.slurm_job_id"].isdigit()
        assert tags["flowmbpo.node"] == row["node"]
        assert 0 <= int(tags["flowmbpo.queue_seconds"]) < 600
    assert "FINISHED" in cluster.flowmbpo("logs", next(iter(table)))


def test_the_time_limit_does_not_end_the_experiment(cluster: Cluster):
    """Two minutes are allowed, more are needed: requeued at the limit, finished later, with one unbroken history."""
    epochs = 130
    cluster.pace(1.0)
    (cluster.directory / "cluster.toml").write_text("[cluster]\ncheckpoint_seconds = 20\n")
    (job,) = cluster.submit("tiny-mlp", "--set", f"train.max_epochs={epochs}", "--time", "2m")
    (task,) = job["tasks"]
    waiting = cluster.until(lambda table: table[task]["state"] == "PENDING" and cluster.record().requeued, 5)[task]
    assert waiting["run_status"] == "KILLED"
    assert 0 < waiting["epoch"] < epochs
    assert resumable_epoch(cluster.directory / "runs" / waiting["run_id"]) >= waiting["epoch"]

    def finished(table: dict[str, dict[str, Any]]) -> bool:
        if table[task]["state"] == "PENDING":
            cluster.start_now(task)
        return ended(table)

    row = cluster.until(finished, 30)[task]
    assert (row["state"], row["run_status"], row["epoch"]) == ("COMPLETED", "FINISHED", epochs), row
    assert row["restarts"] >= 1
    assert row["run_id"] == waiting["run_id"]
    log = cluster.flowmbpo("logs", task)
    assert [f"start {number}:" in log for number in range(1, row["restarts"] + 2)] == [True] * (row["restarts"] + 1)
    record = cluster.runs()[row["run_id"]]
    history = open_reader(resolve_store(None, cluster.directory)).curves([record], ["train/epoch"])
    points = history.sort_values("step")
    assert points["value"].tolist() == list(range(LOG_INTERVAL, epochs + 1, LOG_INTERVAL))
    assert points["step"].is_unique


def test_preempted_then_cancelled_then_continued(cluster: Cluster):
    (job,) = cluster.submit("tiny-mlp", "--set", "train.max_epochs=1000000")
    (task,) = job["tasks"]
    begun = cluster.until(lambda table: (table[task]["epoch"] or 0) > 10)[task]

    # SIGTERM from Slurm while the job counts as running is what preemption looks like.
    cluster.program("scancel", "--signal=TERM", task)
    cluster.until(lambda table: table[task]["state"] == "PENDING" and cluster.record().requeued, 3)
    cluster.start_now(task)
    cluster.until(lambda table: table[task]["restarts"] == 1 and table[task]["epoch"] > begun["epoch"] + 10)

    cluster.flowmbpo("cancel", task)
    row = cluster.until(ended, 3)[task]
    assert (row["state"], row["run_status"], row["run_id"]) == ("CANCELLED", "KILLED", begun["run_id"]), row
    assert f"continue: flowmbpo submit --resume {row['run_id']}" in row["note"]
    assert resumable_epoch(cluster.directory / "runs" / row["run_id"]) >= row["epoch"]

    (again,) = cluster.submit("--resume", row["run_id"])
    (second,) = again["tasks"]
    cluster.until(lambda table: table[second]["state"] == "RUNNING" and table[second]["epoch"] > row["epoch"])
    assert list(cluster.runs()) == [row["run_id"]]
    cluster.flowmbpo("cancel", second)
    cluster.until(ended, 3)


def test_a_failing_task_shows_its_error(cluster: Cluster):
    (cluster.directory / "broken.db").write_bytes(b"this is no database" * 100)
    (job,) = cluster.submit("tiny-mlp", "--tracking-uri", "sqlite:///broken.db")
    row = cluster.until(ended)[job["tasks"][0]]
    assert row["state"] == "FAILED"
    assert row["note"].startswith("failed: ")
    assert "broken.db is damaged" in row["note"]
    assert cluster.record().exit_code == 1


def test_slurm_refuses_a_gpu_that_no_node_has(cluster: Cluster):
    said = cluster.flowmbpo("submit", "tiny-mlp", "--gpus", "1", "--gpu", "l40s", code=1)
    assert "Requested node configuration is not available" in said
    assert "case-sensitive" in said
    assert cluster.jobs() == {}
