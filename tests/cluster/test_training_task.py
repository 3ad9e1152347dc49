"""One start of a task, with a small program in place of the training."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from flowmbpo.cluster import preflight
from flowmbpo.cluster.job import TrainingTask, train
from flowmbpo.cluster.states import reported_state
from flowmbpo.cluster.task import Attempt, resumable_epoch, runs_of_tasks
from flowmbpo.runs.layout import RunFiles

TRAINING = Path(__file__).with_name("stand_in_training.py")


@pytest.fixture
def start(directory: Path, make_submission, programs, monkeypatch):
    """Start the task of seed 0 in a process of its own; the function returns the process and the submission."""
    (directory / "training.py").write_text(TRAINING.read_text())
    monkeypatch.setenv("SLURM_JOB_ID", "9001")
    programs(scontrol="exit 0", squeue="echo RUNNING")
    processes = []

    def begin(mode: str, **changes: object):
        submission = make_submission(**changes)
        program = f"""
            import sys
            from pathlib import Path
            from flowmbpo.cluster.job import TrainingTask
            from flowmbpo.cluster.task import Attempt
            from flowmbpo.cluster import preflight
            preflight.failure = lambda *_: ""
            Attempt.command = lambda self, run_id: [sys.executable, "training.py", {mode!r}, run_id]
            TrainingTask(Path({str(submission.folder)!r}), 0)()
            """
        process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], cwd=directory)
        processes.append(process)
        return process, submission

    yield begin
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.05)


def calls(programs) -> str:
    file = programs() / "calls"
    return file.read_text() if file.exists() else ""


def test_a_run_that_ends_is_completed(start, directory):
    process, submission = start("ends", submitted_at=time.time() - 100)
    assert process.wait(60) == 0
    reported = submission.tasks[0].state
    assert (reported.exit_code, reported.starts, reported.requeued) == (0, 1, False)
    assert reported.peak_memory_mb > 1
    assert reported_state(submission.tasks[0]).state == "COMPLETED"
    environment = json.loads((directory / "runs" / "r123_0" / "environment.json").read_text())
    assert environment["FLOWMBPO_JOB"] == "123_0"
    assert environment["MLFLOW_TRACKING_URI"] == submission.tracking_uri
    assert 100 <= int(environment["FLOWMBPO_QUEUE_SECONDS"]) < 200


def test_the_run_of_a_task_is_found_by_its_tag(start, directory):
    process, submission = start("ends")
    process.wait(60)
    assert runs_of_tasks(directory / "runs") == {f"{submission.folder.name}/0": "r123_0"}


def test_sigusr1_checkpoints_requeues_and_continues_the_same_run(start, directory, programs):
    process, submission = start("until 2")
    for epoch in (1, 2):
        wait_for(directory / "runs" / "r123_0" / "ready")
        assert submission.tasks[0].is_alive
        process.send_signal(signal.SIGUSR1)
        assert process.wait(60) == 128 + signal.SIGUSR1
        assert not submission.tasks[0].is_alive
        assert submission.tasks[0].state.requeued
        assert resumable_epoch(directory / "runs" / "r123_0") == epoch
        assert calls(programs).count("scontrol requeue 9001") == epoch
        (directory / "runs" / "r123_0" / "ready").unlink()
        process, submission = start("until 2")
    assert process.wait(60) == 0
    assert submission.tasks[0].state.starts == 3
    assert [path.name for path in (directory / "runs").glob("r*")] == ["r123_0"]


def test_no_progress_is_not_requeued_for_ever(start, directory, programs):
    process, submission = start("stuck")
    wait_for(directory / "runs" / "r123_0" / "ready")
    process.send_signal(signal.SIGUSR1)
    assert process.wait(60) == 1
    assert "longer --time" in submission.tasks[0].state.message
    assert "requeue" not in calls(programs)


def test_a_refused_requeue_is_a_failure_that_says_how_to_go_on(start, directory, programs):
    programs(scontrol='echo "requeue is disabled" >&2; exit 1')
    process, submission = start("waits")
    wait_for(directory / "runs" / "r123_0" / "ready")
    process.send_signal(signal.SIGUSR1)
    assert process.wait(60) == 1
    assert "requeue is disabled" in submission.tasks[0].state.message
    assert "flowmbpo submit --resume r123_0" in submission.tasks[0].state.message


def test_a_local_queue_inside_an_allocation_leaves_that_job_alone(start, directory, programs):
    process, submission = start("waits", cluster="local")  # Slurm warns every process of the allocation
    wait_for(directory / "runs" / "r123_0" / "ready")
    process.send_signal(signal.SIGUSR1)
    assert process.wait(60) == 128 + signal.SIGUSR1
    assert "requeue" not in calls(programs)
    assert not submission.tasks[0].state.requeued
    assert submission.tasks[0].state.message == "stopped by SIGUSR1 with everything saved"


def test_a_log_on_a_full_disk_costs_its_lines_only(make_submission, monkeypatch):
    monkeypatch.setattr(sys, "stdout", open("/dev/full", "w"))  # noqa: SIM115 (as long as the test)
    monkeypatch.setattr(Attempt, "command", lambda self, run_id: [sys.executable, "-c", ""])
    monkeypatch.setattr(preflight, "failure", lambda *_: "")
    submission = make_submission()
    assert train(submission, 0, submission.tasks[:1]) == 0


def test_sigterm_of_a_preempted_job_requeues_it(start, directory, programs):
    process, submission = start("waits")
    wait_for(directory / "runs" / "r123_0" / "ready")
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    assert submission.tasks[0].state.requeued
    assert "scontrol requeue 9001" in calls(programs)


def test_sigterm_of_a_cancelled_job_does_not(start, directory, programs):
    programs(squeue="echo CANCELLED")
    process, submission = start("waits")
    wait_for(directory / "runs" / "r123_0" / "ready")
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    assert not submission.tasks[0].state.requeued
    assert reported_state(submission.tasks[0]).state == "CANCELLED"
    assert "requeue" not in calls(programs)


def test_a_cancelled_task_does_not_start(start, directory, make_submission):
    make_submission().files.task(0).cancelled.touch()
    process, submission = start("ends")
    assert process.wait(60) == 128 + signal.SIGTERM
    assert submission.tasks[0].state.starts == 0


def test_a_failing_run_fails_the_job(start, programs):
    process, submission = start("fails")
    assert process.wait(60) == 1
    assert reported_state(submission.tasks[0]).state == "FAILED"
    assert "requeue" not in calls(programs)


def test_a_killed_run_is_shown_as_killed(start):
    process, submission = start("killed")
    assert process.wait(60) == 128 + signal.SIGKILL
    assert reported_state(submission.tasks[0]).state == "KILLED"


def test_a_killed_job_is_shown_as_killed_and_continued(start, directory):
    """The job's process dies too (power loss): nothing could be written down."""
    process, submission = start("waits")
    wait_for(directory / "runs" / "r123_0" / "ready")
    (directory / "runs" / "r123_0" / "resume" / "epoch-000007").mkdir(parents=True)
    child = psutil.Process(process.pid).children()[0].pid
    process.kill()
    process.wait()
    os.kill(child, signal.SIGKILL)
    assert reported_state(submission.tasks[0]).state == "KILLED"
    process, submission = start("until 2")
    assert process.wait(60) == 0
    assert [path.name for path in (directory / "runs").glob("r*")] == ["r123_0"]


def test_a_cancelled_task_does_not_go_on_with_the_others_of_its_job(make_submission):
    submission = make_submission(pack=2)
    submission.files.task(0).cancelled.touch()
    attempt = Attempt(submission.tasks[0])
    attempt.save(exit_code=143)
    assert not attempt.goes_on(asked_for_room=True)  # the time limit came while it was being stopped, or later
    assert (attempt.state.exit_code, attempt.state.message) == (143, "")


@pytest.mark.parametrize(
    ("changes", "run_id", "expected"),
    [
        ({}, "", "tiny --seed 0 --set train.max_epochs=5 --set train.gamma=0.9"),
        ({}, "abc", "--resume abc"),
        ({"request": {"gpus": 1}}, "abc", "--resume abc --device cuda"),
        ({"request": {"gpus": 1}, "cluster": "local"}, "abc", "--resume abc"),
        ({"accept_changes": True}, "abc", "--resume abc --accept-changes"),
    ],
)
def test_the_command_of_a_task(make_submission, changes, run_id, expected):
    submission = make_submission(overrides=("train.max_epochs=5", "train.gamma=0.9"), **changes)
    command = " ".join(Attempt(submission.tasks[0]).command(run_id))
    assert command == f"{sys.executable} -P -m flowmbpo run {expected} --registry {submission.files.registry}"


def test_resumable_states_are_where_training_writes_them(directory):
    files = RunFiles.of("abc")
    assert resumable_epoch(files.root) is None
    for epoch in (5, 1_000_000, 40):
        (files.resume / f"epoch-{epoch:06d}").mkdir(parents=True)
    (files.resume / ".epoch-9999999.tmp").mkdir()
    assert files.resume_epochs() == [5, 40, 1_000_000]
    assert resumable_epoch(files.root) == 1_000_000


def test_the_task_is_a_small_pickle(make_submission):
    import pickle

    task = TrainingTask(make_submission().folder, 1)
    assert pickle.loads(pickle.dumps(task)) == task
