"""Queue state and training state in one row, and what is said about tasks that ended badly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from flowmbpo.cluster.overview import last_words, rows
from flowmbpo.cluster.submission import Submission, TaskState, find_tasks, submissions
from flowmbpo.errors import UserError
from flowmbpo.tracking.records import Latest, RunRecord


def a_run(run_id: str, epoch: int, reward: float, status: str = "RUNNING") -> RunRecord:
    points = {"train/epoch": float(epoch), "train/episode_reward": reward, "perf/epoch_seconds": 2.0}
    return RunRecord(
        run_id=run_id,
        mlflow_run_id=run_id,
        experiment_id="1",
        run_name="tiny/seed-0",
        status=status,  # type: ignore[arg-type]
        start_time=0.0,
        end_time=None,
        params={"train.max_epochs": "1000"},
        tags={},
        metrics={name: Latest(value, 640, 0.0) for name, value in points.items()},
    )


def give_run(submission: Submission, index: int, run_id: str) -> None:
    """A run on disk that carries the task's tag."""
    folder = submission.directory / "runs" / run_id / "tracking"
    folder.mkdir(parents=True)
    tags = {"flowmbpo.job_task": f"{submission.folder.name}/{index}"}
    entry = {"op": "create", "key": run_id, "name": "", "time": 5, "tags": tags, "store": ""}
    (folder / "journal.jsonl").write_text(json.dumps(entry) + "\n")


def test_a_running_and_a_waiting_task(make_submission, programs):
    programs(squeue="echo '123_0|RUNNING|None|node07'; echo '123_1|PENDING|Priority|'")
    submission = make_submission()
    submission.tasks[0].save(TaskState(starts=3, node="node07"))
    give_run(submission, 0, "abc")
    running, waiting = rows([submission], {"abc": a_run("abc", 400, 812.0)})
    assert (running.job, running.state, running.node, running.restarts) == ("123_0", "RUNNING", "node07", 2)
    assert (running.run_id, running.epoch, running.max_epochs, running.episode_reward) == ("abc", 400, 1000, 812.0)
    assert running.eta_seconds == 1200.0  # 600 epochs of 2 s
    assert (waiting.state, waiting.reason, waiting.epoch, waiting.note) == ("PENDING", "Priority", None, "")


@pytest.mark.parametrize(
    ("said", "record", "expected"),
    [
        ("OUT_OF_MEMORY", {"exit_code": 137}, ["used up its memory of 16 GB", "submit --resume abc --memory 24"]),
        ("FAILED", {"exit_code": 137, "out_of_memory": True}, ["used up its memory", "--memory 24"]),
        ("TIMEOUT", {}, ["time limit", "submit --resume abc"]),
        ("NODE_FAIL", {}, ["node failed"]),
        ("CANCELLED", {"exit_code": 143}, ["cancelled", "submit --resume abc"]),
        ("FAILED", {"exit_code": 1}, ["failed: diverged by epoch 9"]),
        ("FAILED", {"exit_code": 1, "message": "no epoch was finished"}, ["no epoch was finished"]),
    ],
)
def test_how_it_ended_what_it_reached_and_how_to_go_on(make_submission, programs, said, record, expected):
    programs(squeue=f"echo '123_0|{said}|None|node07'")
    submission = make_submission(seeds=(0,))
    submission.tasks[0].save(TaskState(starts=1, **record))
    submission.tasks[0].log.write_text("epoch 8\nfailed: diverged by epoch 9\nsrun: error: node07: task 0: Exited\n")
    give_run(submission, 0, "abc")
    (row,) = rows([submission], {"abc": a_run("abc", 400, 812.0, "KILLED")})
    for text in [*expected, "reached epoch 400 of 1,000, R 812"]:
        assert text in row.note
    assert row.eta_seconds is None


def test_slurm_has_forgotten_the_job_and_keeps_no_accounts(make_submission, programs):
    programs(squeue="exit 0", sacct="exit 1")
    submission = make_submission(seeds=(0, 1, 2))
    submission.tasks[0].save(TaskState(starts=1, exit_code=0))
    submission.tasks[1].save(TaskState(starts=1))
    states = [row.state for row in rows([submission], {})]
    assert states == ["COMPLETED", "KILLED", "UNKNOWN"]


def test_a_job_that_continues_a_run_shows_that_run(make_submission, programs):
    programs(squeue="echo '123_0|RUNNING|None|n'")
    (row,) = rows([make_submission(seeds=(0,), resume="abc")], {"abc": a_run("abc", 7, 1.0)})
    assert (row.run_id, row.epoch) == ("abc", 7)


def test_last_words(tmp_path: Path):
    log = tmp_path / "log"
    assert last_words(log) == ""
    log.write_text("")
    assert last_words(log) == ""
    log.write_text("a\nTraceback\nKeyError: 'x'\n\nsrun: error: task 0\n")
    assert last_words(log) == "KeyError: 'x'"
    log.write_bytes(b"error: wrong name\n\xff\xfe what follows\n")
    assert last_words(log) == "error: wrong name"


def test_jobs_are_found_by_id_and_task(make_submission):
    first = make_submission(stamp="20251118-100000-a", submitted_at=1.0, job_id="122")
    second = make_submission(stamp="20251118-100000-b", submitted_at=2.0)
    make_submission(stamp="20251118-100000-c", job_id="")  # never taken by the cluster
    (first.folder.parent / "broken").mkdir()
    (first.folder.parent / "broken" / "submission.json").write_text("{")
    assert submissions() == [first, second]
    assert [(task.submission, task.index) for task in find_tasks("123")] == [(second, 0), (second, 1)]
    assert [(task.submission, task.index) for task in find_tasks("122_1")] == [(first, 1)]
    with pytest.raises(UserError, match="122, 123"):
        find_tasks("123_2")


def test_what_was_submitted_is_not_judged_by_the_rules_of_today(make_submission):
    submission = make_submission(request={"setup": ["module load cuda"], "cpus": 2})
    document = json.loads(submission.files.submission.read_text())
    document["request"] |= {"options": {"array": "0-9"}, "max_requeues": 0, "of_another_version": 1}
    del document["request"]["memory_gb"]
    submission.files.submission.write_text(json.dumps(document))
    (found,) = submissions()
    assert (found.request.options, found.request.max_requeues) == ({"array": "0-9"}, 0)
    assert (found.request.setup, found.request.cpus, found.request.memory_gb) == (("module load cuda",), 2, 128.0)


def test_a_submission_is_private_and_complete(make_submission):
    submission = make_submission(tracking_uri="http://me:secret@host", overrides=("train.gamma=0.9",))
    file = submission.folder / "submission.json"
    assert file.stat().st_mode & 0o077 == 0
    assert Submission.load(submission.folder) == submission
    assert submission.submitted("7") == replace(submission, job_id="7") == Submission.load(submission.folder)


@pytest.mark.parametrize(("text", "reason"), [("{}", "'folder' is missing"), ("{", "submission.json")])
def test_a_submission_that_cannot_be_read_is_named(make_submission, programs, flowmbpo, text, reason):
    programs(squeue="exit 0", sacct="exit 0")
    make_submission(stamp="good", job_id="1")
    damaged = make_submission(stamp="damaged", job_id="2")
    damaged.files.submission.write_text(text)
    done = flowmbpo("jobs", "--json")
    assert done.code == 0, done.text
    assert [row["job"] for row in done.json()] == ["1_0", "1_1"]
    assert f"warning: runs/jobs/{damaged.folder.name}/submission.json: " in done.err
    assert reason in done.err
