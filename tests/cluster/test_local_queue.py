"""The queue of one machine: detached processes with a small program in place of the training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from flowmbpo.cluster import local
from flowmbpo.cluster.overview import rows
from flowmbpo.cluster.submission import Submission, submissions
from flowmbpo.runs.files import is_locked
from flowmbpo.runs.layout import QueueFiles

TRAINING = Path(__file__).with_name("stand_in_training.py")
# Loaded by every Python that the queue starts: the experiment's name is the mode of the stand-in.
PATCH = f"""
import sys
from flowmbpo.cluster import preflight
from flowmbpo.cluster.task import Attempt
preflight.failure = lambda *_: ""
Attempt.command = lambda self, run_id: [sys.executable, {str(TRAINING)!r}, self.submission.name, run_id]
"""


@pytest.fixture
def submit(directory: Path, make_submission, monkeypatch: pytest.MonkeyPatch):
    """Submit to the local queue of `directory`; whatever is left afterwards is ended."""
    (directory / "patch").mkdir()
    (directory / "patch" / "sitecustomize.py").write_text(PATCH)
    monkeypatch.setenv("PYTHONPATH", str(directory / "patch"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def send(mode: str, seeds: tuple[int, ...] = (0,), parallel: int | None = None) -> Submission:
        number = len(submissions())
        draft = make_submission(
            stamp=f"20251118-10000{number}-{mode.replace(' ', '')}",
            cluster="local",
            name=mode,
            seeds=seeds,
            request={"gpus": 0, "parallel": parallel},
            job_id="",
        )
        return local.submit(draft)

    yield send
    (directory / "release").touch()
    for submission in submissions():
        for task in submission.tasks:
            task.files.cancelled.touch()
            local.terminate(task)
    until(lambda: not is_locked(QueueFiles(directory / "runs" / "jobs").lock))


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within a minute"
        time.sleep(0.05)


def states(submission: Submission) -> list[str]:
    return [local.state(task).state for task in submission.tasks]


def test_everything_runs_in_order_and_the_queue_ends(submit, directory):
    first, second = submit("ends", (0, 1)), submit("fails")
    assert (first.job_id, second.job_id) == ("local-1", "local-2")
    until(lambda: states(first) == ["COMPLETED"] * 2 and states(second) == ["FAILED"])
    until(lambda: not is_locked(QueueFiles(directory / "runs" / "jobs").lock))
    begun = [task.state.started_at for task in (*first.tasks, *second.tasks)]
    assert begun == sorted(begun)
    assert "failed: diverged by epoch 3" in second.tasks[0].log.read_text()


def test_a_bounded_number_at_once(submit, directory):
    jobs = submit("waits", tuple(range(5)), parallel=2)
    seen: set[int] = set()
    until(lambda: states(jobs).count("RUNNING") == 2)
    for _ in range(10):
        seen.add(states(jobs).count("RUNNING"))
        time.sleep(0.1)
    assert seen == {2}
    assert states(jobs)[2:] == ["PENDING"] * 3
    assert local.state(jobs.tasks[2]).reason == "Resources"
    (directory / "release").touch()
    until(lambda: states(jobs) == ["COMPLETED"] * 5)


def test_tasks_outlive_the_submitting_shell(submit, directory, make_submission):
    draft = make_submission(stamp="x", cluster="local", name="waits", seeds=(0,), job_id="", request={})
    program = (
        "from pathlib import Path\n"
        "from flowmbpo.cluster import local\nfrom flowmbpo.cluster.submission import Submission\n"
        f"local.submit(Submission.load(Path({str(draft.folder)!r})))\n"
    )
    shell = subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
    shell.wait(60)
    (submission,) = submissions()
    until(lambda: submission.tasks[0].state.pid)
    with pytest.raises(ProcessLookupError):  # the shell's session is gone, with all that belonged to it
        os.killpg(shell.pid, signal.SIGHUP)
    assert os.getsid(submission.tasks[0].state.pid) == submission.tasks[0].state.pid
    assert states(submission) == ["RUNNING"]


def test_cancel_before_and_while_running(submit, directory):
    jobs = submit("waits", (0, 1, 2), parallel=1)
    until(lambda: (directory / "runs" / "rlocal-1_0" / "ready").exists())
    for task in jobs.tasks[:2]:
        task.files.cancelled.touch()
        local.terminate(task)
    until(lambda: states(jobs) == ["CANCELLED", "CANCELLED", "RUNNING"])
    assert (directory / "runs" / "rlocal-1_0" / "resume" / "epoch-000001").is_dir()
    assert jobs.tasks[1].state.starts == 0


def test_a_killed_queue_leaves_its_tasks_and_the_next_submission_goes_on(submit, directory):
    jobs = submit("waits", (0, 1), parallel=1)
    until(lambda: jobs.tasks[0].state.pid)
    parent = int(Path(f"/proc/{jobs.tasks[0].state.pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGKILL)
    until(lambda: "queue stopped" in local.state(jobs.tasks[1]).reason)
    assert states(jobs) == ["RUNNING", "PENDING"]
    more = submit("ends", parallel=1)
    time.sleep(2)
    assert states(jobs) == ["RUNNING", "PENDING"]  # the orphan still counts
    (directory / "release").touch()
    until(lambda: states(jobs) == ["COMPLETED"] * 2 and states(more) == ["COMPLETED"])


def test_a_killed_task_is_seen(submit, directory):
    jobs = submit("waits")
    until(lambda: (directory / "runs" / "rlocal-1_0" / "ready").exists())
    pid = jobs.tasks[0].state.pid
    child = psutil.Process(pid).children()[0].pid
    for process in (pid, child):
        os.kill(process, signal.SIGKILL)
    until(lambda: not jobs.tasks[0].is_alive)
    assert states(jobs) == ["KILLED"]


def test_each_task_gets_a_gpu_of_its_own(directory, make_submission, submit, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    draft = make_submission(stamp="g", cluster="local", name="waits", seeds=(0, 1, 2), job_id="", request={"gpus": 1})
    jobs = local.submit(draft)
    until(lambda: states(jobs) == ["RUNNING", "RUNNING", "PENDING"])  # by default one task per GPU
    ready = [directory / "runs" / f"rlocal-1_{index}" / "ready" for index in (0, 1)]
    until(lambda: all(path.exists() for path in ready))
    found = {(path.parent / "environment.json").read_text().rpartition("CUDA_VISIBLE_DEVICES")[2] for path in ready}
    assert found == {'": "4", "WHICH_SHELL": null}', '": "6", "WHICH_SHELL": null}'}


def test_a_later_submission_brings_the_variables_of_its_own_shell(submit, directory, monkeypatch):
    first = submit("waits", parallel=2)
    until(lambda: states(first) == ["RUNNING"])
    assert not first.files.environment.exists()  # tokens stand in it, and nobody needs it any more
    monkeypatch.setenv("WHICH_SHELL", "the second")
    second = submit("waits", parallel=2)
    ready = directory / "runs" / "rlocal-2_0" / "ready"
    until(ready.exists)
    assert '"the second"' in (ready.parent / "environment.json").read_text()
    assert states(second) == ["RUNNING"]


def test_the_variables_of_a_waiting_submission_are_for_its_owner_only(submit):
    first = submit("waits", (0, 1), parallel=1)
    until(lambda: states(first) == ["RUNNING", "PENDING"])
    assert first.files.environment.stat().st_mode & 0o777 == 0o600


def test_files_in_the_working_directory_are_no_modules(submit, directory):
    (directory / "shlex.py").write_text("raise ImportError('a file of the user')")
    jobs = submit("ends")
    until(lambda: states(jobs) == ["COMPLETED"])


def test_a_task_that_cannot_begin_says_why(submit, monkeypatch):
    first = submit("waits", parallel=2)
    until(lambda: states(first) == ["RUNNING"])
    monkeypatch.setenv("PYTHONHOME", "/nonexistent")
    second = submit("waits", parallel=2)
    until(lambda: states(second) == ["FAILED"])
    (row,) = rows([second], {})
    assert "encodings" in row.note
