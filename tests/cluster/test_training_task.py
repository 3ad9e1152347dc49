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

import pytest

from flowmbpo.cluster.states import is_alive, recorded_state
from flowmbpo.cluster.task import Attempt, TrainingTask, resumable_epoch, runs_of_tasks
from flowmbpo.training.run_files import RunFiles

# Stands for `flowmbpo run`: makes a run that carries the job's tags, counts epochs, checkpoints when told to stop.
TRAINING = """
import json, os, pathlib, signal, sys, time
mode, resume = sys.argv[1], sys.argv[2]
run = pathlib.Path("runs") / (resume or "r%d" % len(list(pathlib.Path("runs").glob("r*"))))
(run / "tracking").mkdir(parents=True, exist_ok=True)
if not resume:
    tags = {"flowmbpo.job_task": os.environ["FLOWMBPO_JOB_TASK"], "flowmbpo.name": "tiny", "flowmbpo.seed": "0"}
    record = {"op": "create", "time": time.time_ns() // 10**6, "tags": tags}
    (run / "tracking" / "journal.jsonl").write_text(json.dumps(record) + "\\n")
states = sorted((run / "resume").glob("epoch-*"))
epoch = int(states[-1].name[6:]) if states else 0
keep = {name: os.environ[name] for name in ("FLOWMBPO_JOB", "FLOWMBPO_QUEUE_SECONDS", "MLFLOW_TRACKING_URI")}
(run / "environment.json").write_text(json.dumps(keep))
def stop(signum, frame):
    (run / "resume" / ("epoch-%06d" % (epoch + (mode != "stuck")))).mkdir(parents=True, exist_ok=True)
    sys.exit(128 + signum)
signal.signal(signal.SIGUSR1, stop)
signal.signal(signal.SIGTERM, stop)
(run / "ready").touch()
if mode == "fails":
    print("failed: diverged by epoch 3", file=sys.stderr)
    sys.exit(1)
if mode == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if mode == "until 2" and epoch >= 2 or mode == "ends":
    sys.exit(0)
time.sleep(60)
"""


@pytest.fixture
def start(directory: Path, make_submission, programs, monkeypatch):
    """Start the task of seed 0 in a process of its own; the function returns the process and the submission."""
    (directory / "training.py").write_text(TRAINING)
    monkeypatch.setenv("SLURM_JOB_ID", "9001")
    programs(scontrol="exit 0", squeue="echo RUNNING")
    processes = []

    def begin(mode: str, **changes: object):
        submission = make_submission(**changes)
        program = f"""
            import sys
            from pathlib import Path
            from flowmbpo.cluster.task import Attempt, TrainingTask
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
    record = submission.task(0)
    assert (record.exit_code, record.starts, record.requeued) == (0, 1, False)
    assert record.peak_memory_mb > 1
    assert recorded_state(submission, 0).state == "COMPLETED"
    environment = json.loads((directory / "runs" / "r0" / "environment.json").read_text())
    assert environment["FLOWMBPO_JOB"] == "123_0"
    assert environment["MLFLOW_TRACKING_URI"] == submission.tracking_uri
    assert 100 <= int(environment["FLOWMBPO_QUEUE_SECONDS"]) < 200


def test_the_run_of_a_task_is_found_by_its_tag(start, directory):
    process, submission = start("ends")
    process.wait(60)
    assert runs_of_tasks(directory / "runs") == {f"{submission.folder.name}/0": "r0"}


def test_sigusr1_checkpoints_requeues_and_continues_the_same_run(start, directory, programs):
    process, submission = start("until 2")
    for epoch in (1, 2):
        wait_for(directory / "runs" / "r0" / "ready")
        assert is_alive(submission, 0)
        process.send_signal(signal.SIGUSR1)
        assert process.wait(60) == 128 + signal.SIGUSR1
        assert not is_alive(submission, 0)
        assert submission.task(0).requeued
        assert resumable_epoch(directory / "runs" / "r0") == epoch
        assert calls(programs).count("scontrol requeue 9001") == epoch
        (directory / "runs" / "r0" / "ready").unlink()
        process, submission = start("until 2")
    assert process.wait(60) == 0
    assert submission.task(0).starts == 3
    assert [path.name for path in (directory / "runs").glob("r*")] == ["r0"]


def test_no_progress_is_not_requeued_for_ever(start, directory, programs):
    process, submission = start("stuck")
    wait_for(directory / "runs" / "r0" / "ready")
    process.send_signal(signal.SIGUSR1)
    assert process.wait(60) == 1
    assert "longer --time" in submission.task(0).message
    assert "requeue" not in calls(programs)


def test_a_refused_requeue_is_a_failure_that_says_how_to_go_on(start, directory, programs):
    programs(scontrol='echo "requeue is disabled" >&2; exit 1')
    process, submission = start("waits")
    wait_for(directory / "runs" / "r0" / "ready")
    process.send_signal(signal.SIGUSR1)
    assert process.wait(60) == 1
    assert "requeue is disabled" in submission.task(0).message
    assert "flowmbpo submit --resume r0" in submission.task(0).message


def test_sigterm_of_a_preempted_job_requeues_it(start, directory, programs):
    process, submission = start("waits")
    wait_for(directory / "runs" / "r0" / "ready")
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    assert submission.task(0).requeued
    assert "scontrol requeue 9001" in calls(programs)


def test_sigterm_of_a_cancelled_job_does_not(start, directory, programs):
    programs(squeue="echo CANCELLED")
    process, submission = start("waits")
    wait_for(directory / "runs" / "r0" / "ready")
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    assert not submission.task(0).requeued
    assert recorded_state(submission, 0).state == "CANCELLED"
    assert "requeue" not in calls(programs)


def test_a_cancelled_task_does_not_start(start, directory, make_submission):
    make_submission().cancel_mark(0).touch()
    process, submission = start("ends")
    assert process.wait(60) == 128 + signal.SIGTERM
    assert submission.task(0).starts == 0


def test_a_failing_run_fails_the_job(start, programs):
    process, submission = start("fails")
    assert process.wait(60) == 1
    assert recorded_state(submission, 0).state == "FAILED"
    assert "requeue" not in calls(programs)


def test_a_killed_run_is_shown_as_killed(start):
    process, submission = start("killed")
    assert process.wait(60) == 128 + signal.SIGKILL
    assert recorded_state(submission, 0).state == "KILLED"


def test_a_killed_job_is_shown_as_killed_and_continued(start, directory):
    """The job's process dies too (power loss): nothing could be written down."""
    process, submission = start("waits")
    wait_for(directory / "runs" / "r0" / "ready")
    (directory / "runs" / "r0" / "resume" / "epoch-000007").mkdir(parents=True)
    child = int(subprocess.check_output(["pgrep", "-P", str(process.pid)], text=True))
    process.kill()
    process.wait()
    os.kill(child, signal.SIGKILL)
    assert recorded_state(submission, 0).state == "KILLED"
    process, submission = start("until 2")
    assert process.wait(60) == 0
    assert [path.name for path in (directory / "runs").glob("r*")] == ["r0"]


@pytest.mark.parametrize(
    ("changes", "run_id", "expected"),
    [
        ({}, "", "tiny --seed 0 --set train.max_epochs=5 --set train.gamma=0.9"),
        ({}, "abc", "--resume abc"),
        ({"request": {"gpus": 1}}, "abc", "--resume abc --device cuda"),
        ({"request": {"gpus": 1}, "cluster": "local"}, "abc", "--resume abc"),
    ],
)
def test_the_command_of_a_task(make_submission, changes, run_id, expected):
    submission = make_submission(overrides=("train.max_epochs=5", "train.gamma=0.9"), **changes)
    command = " ".join(Attempt(submission, 0).command(run_id))
    assert command == f"{sys.executable} -m flowmbpo run {expected} --registry {submission.registry}"


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
