"""Where, when and with what code jobs start, under a real Slurm of one node. Minutes."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import flowmbpo
from flowmbpo.cluster.submission import submissions
from tests.cluster.real_slurm import ACTIVE, Cluster, ended

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(1200)]

REASON = "libcudart.so.12: cannot open shared object file"


@pytest.fixture
def broken_torch(cluster: Cluster) -> None:
    """On the node another torch is found, which cannot be loaded."""
    package = cluster.directory / "broken" / "torch"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"raise ImportError({REASON!r})\n")
    setup = f'setup = ["export PYTHONPATH={package.parent}"]'
    (cluster.directory / "cluster.toml").write_text(f"[cluster]\n{setup}\n")


def test_a_node_where_the_preflight_fails(cluster: Cluster, broken_torch: None):
    (job,) = cluster.submit("tiny-mlp")
    row = cluster.until(ended)[job["tasks"][0]]
    assert row["state"] == "FAILED"
    assert row["note"].startswith(f"preflight on {row['node']} failed: torch: ImportError: {REASON} (cure: ")
    assert (row["restarts"], cluster.state().requeued) == (0, False)
    assert not list((cluster.directory / "runs").glob("*/tracking"))  # nothing was trained
    assert "preflight: registry good" in cluster.flowmbpo("logs", row["job"])


def test_a_check_that_fails_sends_nothing_else(cluster: Cluster, broken_torch: None):
    said = cluster.flowmbpo("submit", "tiny-mlp", "tiny-flow", "--seeds", "0,1", "--check", code=1)
    assert REASON in said
    assert [(row["name"], row["seed"]) for row in cluster.jobs().values()] == [("tiny-mlp", 0)]  # the check itself


def test_a_python_that_the_node_lacks(cluster: Cluster):
    (cluster.directory / "cluster.toml").write_text('[cluster]\nsetup = ["export LD_PRELOAD= PYTHONHOME=/nowhere"]\n')
    (job,) = cluster.submit("tiny-mlp")
    row = cluster.until(ended)[job["tasks"][0]]
    assert row["state"] == "FAILED"
    assert "ended before flowmbpo began" in row["note"]
    assert "cure" in row["note"]


def test_a_check_that_is_good_leaves_nothing_but_the_array(cluster: Cluster):
    (job,) = cluster.submit("tiny-mlp", "--check")
    row = cluster.until(ended)[job["tasks"][0]]
    assert row["state"] == "COMPLETED"
    assert list(cluster.jobs()) == job["tasks"]
    assert list(cluster.runs()) == [row["run_id"]]


def test_what_was_submitted_is_what_runs(cluster: Cluster):
    """The checkout is edited while two jobs wait: only the one without a copy of the code notices."""
    checkout = cluster.directory / "checkout"
    shutil.copytree(Path(flowmbpo.__file__).parent, checkout / "flowmbpo")
    cluster.environment["PYTHONPATH"] = str(checkout)
    (kept,) = cluster.submit("tiny-mlp", "--option", "hold")
    (loose,) = cluster.submit("tiny-mlp", "--option", "hold", "--no-snapshot", "--seeds", "1")
    with (checkout / "flowmbpo" / "training" / "trainer.py").open("a") as file:
        file.write("\nraise RuntimeError('the checkout has moved on')\n")
    (copy,) = (cluster.directory / "runs" / "jobs" / "code").iterdir()
    assert cluster.jobs()[kept["tasks"][0]]["state"] == "PENDING"
    assert copy.is_dir()  # a job needs it
    cluster.program("scontrol", "release", kept["job"], loose["job"])
    table = cluster.until(ended)
    row = table[kept["tasks"][0]]
    assert row["state"] == "COMPLETED", row
    assert table[loose["tasks"][0]]["state"] == "FAILED"
    assert "the checkout has moved on" in table[loose["tasks"][0]]["note"]
    assert cluster.runs()[row["run_id"]].tags["flowmbpo.code_snapshot"] == copy.name
    assert not copy.exists()  # removed with the last job


def fill(cluster: Cluster) -> str:
    """A job that takes all that the partition `narrow` has."""
    done = cluster.program(
        "sbatch", "--parsable", "--partition=narrow", "--mem=1G", "--time=1:00:00", "--wrap=sleep 3600"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_earliest_of_two_partitions_one_of_which_is_full(cluster: Cluster):
    filler = fill(cluster)
    done = cluster.program(
        sys.executable, "-m", "flowmbpo", "submit", "tiny-mlp", "--partition", "narrow,main", "--option", "hold"
    )
    assert done.returncode == 0, done.stderr
    shown = [line.split() for line in done.stderr.splitlines() if line.endswith(" partition")]
    assert [line[-2] for line in shown] == ["main", "narrow"]
    assert shown[0][0] < shown[1][0]
    (submission,) = submissions(cluster.directory / "runs" / "jobs")
    assert submission.request.partition == "main"
    cluster.program("scancel", filler, submission.job_id)


def test_the_earliest_of_two_gpus_one_of_which_is_taken(cluster: Cluster):
    cluster.program(
        "sbatch", "--gres=gpu:H100:1", "--mem=1G", "--time=1:00:00", "--job-name=taken", "--wrap=sleep 3600"
    )
    deadline = time.monotonic() + 120
    while not cluster.program("squeue", "--noheader", "--name=taken", "--states=RUNNING").stdout:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    arguments = ("tiny-mlp", "--gpus", "1", "--option", "hold")
    (job,) = cluster.submit(*arguments, "--gpu", "H100,L40S")
    assert job["gpu"] == "L40S"
    cluster.program("scancel", job["job"], "--name=taken")
    said = cluster.flowmbpo("submit", *arguments, "--gpu", "A100,h100", code=1)
    assert "case-sensitive" in said


@pytest.mark.parametrize("full", [True, False])
def test_exactly_one_of_a_race_trains(cluster: Cluster, full: bool):
    """Of two partitions one is full, or both start at the same moment."""
    filler = fill(cluster) if full else "0"
    jobs = cluster.submit(
        "tiny-mlp", "--seeds", "0,1", "--race", "--partition", "narrow,main" if full else "main,short"
    )
    assert len(jobs) == 2
    table = cluster.until(ended)
    cluster.program("scancel", filler)
    for seed in (0, 1):
        winner, loser = sorted((row for row in table.values() if row["seed"] == seed), key=lambda row: row["note"])
        assert (winner["state"], winner["epoch"]) == ("COMPLETED", 20), table
        assert loser["state"] == "CANCELLED"
        assert loser["note"].startswith(f"{winner['job']} was ready first")
        assert loser["run_id"] == ""
    assert sorted(run.seed for run in cluster.runs().values()) == [0, 1]


def test_a_job_submitted_from_inside_a_job(cluster: Cluster):
    """The variables of the outer job, its memory per CPU and its binding among them, are not those of the inner one."""
    command = f"{sys.executable} -m flowmbpo submit tiny-mlp"
    options = ["--mem-per-cpu=2000", "--cpus-per-task=2", "--time=10:00", f"--chdir={cluster.directory}"]
    done = cluster.program("sbatch", "--wait", *options, f"--wrap=srun --cpu-bind=cores {command}")
    logs = "".join(path.read_text() for path in cluster.directory.glob("slurm-*.out"))
    assert done.returncode == 0, done.stderr + logs
    (row,) = cluster.until(ended).values()
    assert (row["state"], row["epoch"]) == ("COMPLETED", 20), row


def test_more_seeds_than_an_array_may_have(cluster: Cluster):
    jobs = cluster.submit("tiny-mlp", "--seeds", "0,1,2,3,4,5", "--option", "hold")
    assert [job["seeds"] for job in jobs] == [[0, 1, 2, 3], [4, 5]]
    assert [row["state"] for row in cluster.jobs().values()] == ["PENDING"] * 6
    cluster.flowmbpo("cancel", *(job["job"] for job in jobs))
    assert not [row for row in cluster.jobs().values() if row["state"] in ACTIVE]


def test_limits_in_slurms_words_with_a_hint(cluster: Cluster):
    said = cluster.flowmbpo("submit", "tiny-mlp", "--partition", "short", "--time", "5h", code=1)
    assert "Requested time limit is invalid" in said
    assert "sinfo -o '%P %l'" in said


def test_several_runs_in_one_job(cluster: Cluster):
    (job,) = cluster.submit("tiny-mlp", "tiny-flow", "--seeds", "0,1", "--pack", "4")
    assert job["tasks"] == [f"{job['job']}_0.{index}" for index in range(4)]
    table = cluster.until(ended)
    assert sorted((row["name"], row["seed"], row["state"], row["epoch"]) for row in table.values()) == [
        (name, seed, "COMPLETED", 20) for name in ("tiny-flow", "tiny-mlp") for seed in (0, 1)
    ]
    assert len({run.tags["flowmbpo.slurm_job_id"] for run in cluster.runs().values()}) == 1
    for task, row in table.items():
        assert cluster.runs()[row["run_id"]].tags["flowmbpo.job"] == task
        assert f"{row['name']}/seed-{row['seed']}" in cluster.flowmbpo("logs", task)


def test_a_pack_goes_on_after_its_time_limit_and_without_a_member(cluster: Cluster):
    """Slurm's own signal before the limit, which is brought near once both train."""
    (cluster.directory / "cluster.toml").write_text("[cluster]\ncheckpoint_seconds = 20\n")
    cluster.pace(0.1)  # what trains at full speed slows the tests beside it
    (job,) = cluster.submit("tiny-mlp", "--seeds", "0,1", "--pack", "2", "--set", "train.max_epochs=1000000")
    one, other = job["tasks"]

    def both_trained_to(epoch: int) -> Callable[[dict[str, dict[str, Any]]], bool]:
        return lambda table: [(row["epoch"] or 0) > epoch for row in table.values()] == [True, True]

    cluster.until(both_trained_to(10))
    started = cluster.state().started_at or 0.0
    minutes = int(time.time() - started) // 60 + 2
    assert cluster.program("scontrol", "update", f"JobId={job['job']}_0", f"TimeLimit={minutes}").returncode == 0
    (submission,) = submissions(cluster.directory / "runs" / "jobs")
    cluster.until(lambda table: all(submission.tasks[index].state.requeued for index in (0, 1)), 5)
    reached = max(row["epoch"] for row in cluster.until(lambda table: table[one]["state"] == "PENDING").values())
    cluster.start_now(f"{job['job']}_0")
    table = cluster.until(both_trained_to(reached + 10))
    assert [row["restarts"] for row in table.values()] == [1, 1]
    assert len(cluster.runs()) == 2

    cluster.flowmbpo("cancel", one)
    left = cluster.until(lambda table: (table[one]["state"], table[one]["run_status"]) == ("CANCELLED", "KILLED"))
    assert f"continue: flowmbpo submit --resume {left[one]['run_id']}" in left[one]["note"]
    cluster.until(lambda table: table[other]["epoch"] > left[other]["epoch"] + 10)
    assert cluster.jobs()[other]["state"] == "RUNNING"
    cluster.flowmbpo("cancel", other)
    assert {row["state"] for row in cluster.until(ended).values()} == {"CANCELLED"}


def test_a_job_in_a_folder_of_any_name(cluster: Cluster):
    """In the name of a job's log Slurm replaces what follows a percent sign."""
    name = "50%20 off, what? is a'b"
    folder = cluster.directory / name
    folder.mkdir()
    (cluster.directory / "experiments.toml").rename(folder / "experiments.toml")
    cluster.directory = folder
    (job,) = cluster.submit("tiny-mlp", "--check")
    row = cluster.until(ended)[job["tasks"][0]]
    assert (row["state"], row["epoch"]) == ("COMPLETED", 20), row
    assert "FINISHED" in cluster.flowmbpo("logs", row["job"])
    assert {path.name for path in folder.parent.iterdir()} <= {name, "matplotlib"}  # its settings
