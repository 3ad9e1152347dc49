"""Real training under a real Slurm of one node. `tests/cluster/slurm.sh install` (as root) makes these run; minutes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flowmbpo.cluster.task import resumable_epoch
from flowmbpo.tracking.reader import open_reader
from flowmbpo.tracking.store import resolve_store
from tests.cluster.real_slurm import LOG_INTERVAL, Cluster, ended

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(2400)]


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
    waiting = cluster.until(lambda table: table[task]["state"] == "PENDING" and cluster.state().requeued, 5)[task]
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


SPACE = '"actor.learning_rate" = { low = 1e-4, high = 1e-2, log = true }'


def test_a_search_in_two_jobs(cluster: Cluster):
    """One worker is told to make room and goes back to the queue, as at its time limit; the other goes on."""
    pytest.importorskip("optuna")
    cluster.pace(0.5)
    (cluster.directory / "space.toml").write_text(SPACE)
    search = ("sweep", "tiny-mlp", "--space", "space.toml", "--trials", "3", "--seeds", "1", "--epochs", "20")
    (job,) = json.loads(cluster.flowmbpo(*search, "--submit", "--parallel", "2", "--json"))
    assert (job["name"], job["cluster"], len(job["tasks"])) == ("tiny-mlp-sweep", "slurm", 2)
    first = job["tasks"][0]
    cluster.until(lambda table: table[first]["epoch"])
    cluster.program("scancel", "--signal=USR1", first)

    def over(table: dict[str, dict[str, Any]]) -> bool:
        if table[first]["state"] == "PENDING":
            cluster.start_now(first)
        return ended(table)

    table = cluster.until(over, 20)
    assert {row["state"] for row in table.values()} == {"COMPLETED"}, table
    assert table[first]["restarts"] == 1
    found = json.loads(cluster.flowmbpo(*search, "--json"))
    assert [trial["number"] for trial in found["trials"]] == [0, 1, 2]
    assert found["reported"] == found["winner_runs"]["1"]
    names = sorted(run.name for run in cluster.runs().values())
    assert names == ["tiny-mlp-sweep"] * 3 + ["tiny-mlp-tuned"]  # what was interrupted went on
    assert {run.status for run in cluster.runs().values()} <= {"FINISHED", "KILLED"}


def test_preempted_then_cancelled_then_continued(cluster: Cluster):
    cluster.pace(0.1)  # what trains at full speed slows the tests beside it
    (job,) = cluster.submit("tiny-mlp", "--set", "train.max_epochs=1000000")
    (task,) = job["tasks"]
    begun = cluster.until(lambda table: (table[task]["epoch"] or 0) > 10)[task]

    # SIGTERM from Slurm while the job counts as running is what preemption looks like.
    cluster.program("scancel", "--signal=TERM", task)
    cluster.until(lambda table: table[task]["state"] == "PENDING" and cluster.state().requeued, 3)
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
    assert row["note"].startswith("preflight on ")  # it is noticed before anything is trained
    assert "broken.db is damaged" in row["note"]
    assert cluster.state().exit_code == 1


def test_slurm_refuses_a_gpu_that_no_node_has(cluster: Cluster):
    said = cluster.flowmbpo("submit", "tiny-mlp", "--gpus", "1", "--gpu", "l40s", code=1)
    assert "Requested node configuration is not available" in said
    assert "case-sensitive" in said
    assert cluster.jobs() == {}
