"""Whole commands that are interrupted: what they leave, what they say, and that continuing is exact."""

import json
import random
import signal
import subprocess
import sys

import pytest

from flowmbpo.runs import checkpoint
from flowmbpo.runs.layout import RunFiles


def assert_continues_as_if_never_interrupted(work, new_workplace, last):
    """The run of `work`, finished at epoch `last`, against one that was left in peace."""
    whole = new_workplace("whole")
    whole.run("run", "small", "--epochs", last)
    assert whole.digests(whole.run_id, last) == work.digests(work.run_id, last)
    assert work.histories(work.run_id) == whole.histories(whole.run_id)
    assert work.status(work.run_id) == "FINISHED"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_saves_and_the_run_goes_on_exactly(work, new_workplace, signum):
    command = work.start("run", "small")
    work.until(lambda: work.epochs_logged() >= 4, command)
    command.send(signum)
    assert command.wait() == 128 + signum, command.text
    run_id = work.run_id
    assert f"continue     flowmbpo run --resume {run_id}" in command.text
    assert work.status(run_id) == "KILLED"
    (epoch,) = work.states()
    assert epoch >= work.epochs_logged() >= 4
    assert len(work.histories(run_id)["train/epoch"]) == epoch
    work.run("run", "--resume", run_id, "--epochs", epoch + 3)
    assert_continues_as_if_never_interrupted(work, new_workplace, epoch + 3)


def test_what_was_not_started_is_named(work):
    command = work.start("run", "small", "--seeds", "0,1,2")
    work.until(lambda: work.epochs_logged() >= 1, command)
    command.send(signal.SIGINT)
    assert command.wait() == 130, command.text
    assert "not started: small/seed-1, small/seed-2" in command.text


def test_a_signal_does_not_wait_for_the_many_first_updates(work):
    """They would take hours."""
    command = work.start("run", "small", "--set", "train.wm_first_updates=1_000_000")
    work.until(lambda: "epoch 1, world model:" in command.text, command)
    assert "of 1,000,000 updates" in command.text
    work.until(lambda: "of 1,000,000 updates" in work.run("watch", work.run_id, before=look_once), command)
    command.send(signal.SIGTERM)
    assert command.wait() == 128 + signal.SIGTERM, command.text
    assert work.states() == [0]
    command = work.start("run", "--resume", work.run_id)
    work.until(lambda: "epoch 1, world model:" in command.text, command)
    command.send(signal.SIGTERM)
    assert command.wait() == 128 + signal.SIGTERM, command.text


def look_once():
    from flowmbpo.cli import streams

    streams.nobody_reads = lambda: True


def test_a_second_ctrl_c_stops_at_once(work):
    """The first one waits for the end of a checkpoint that never ends."""
    command = work.start("run", "small", before=hang_in_second_checkpoint)
    work.until(lambda: "hanging" in command.text, command)
    command.send(signal.SIGINT)
    work.until(lambda: "interrupted" in command.text, command)
    command.send(signal.SIGINT)
    assert command.wait() == 128 + signal.SIGINT
    assert command.text.count("interrupted") == 1  # not even the handler ran again
    files = RunFiles(work.run_folder)
    state, problems = checkpoint.newest(files.resume, files.resume_epochs(), "resume")
    assert state is not None
    assert not problems
    assert state.load()["trainer"]["epoch"] == state.epoch == 10
    shown = work.run("runs", "--json")
    assert '"KILLED"' in shown
    assert work.status(work.run_id) == "KILLED"
    work.run("run", "--resume", work.run_id, "--epochs", 12)
    assert work.status(work.run_id) == "FINISHED"


def hang_in_second_checkpoint():
    """A disk that stops answering: writing the state of epoch 20 takes for ever."""
    import ctypes

    from flowmbpo.runs import tensors

    original = tensors.write_tensors

    def write(path, tensors):
        if "epoch-000020" in str(path):
            print("hanging", flush=True)
            while signal.getsignal(signal.SIGINT) is not signal.SIG_DFL:  # until our handler ran
                ctypes.PyDLL(None).usleep(100_000)  # holds the interpreter, as a long kernel does
            while True:
                print("interrupted", flush=True)
                ctypes.PyDLL(None).sleep(1000)
        return original(path, tensors)

    tensors.write_tensors = write


def test_kill_9_at_random_moments(work, new_workplace):
    """Three kills; each loses at most what came after the last checkpoint interval, and the end is the same."""
    moments = random.Random(6)
    arguments = ["run", "small"]
    for _ in range(3):
        command = work.start(*arguments)
        before = work.epochs_logged()
        work.until(lambda before=before: work.epochs_logged() > max(11, before), command)
        command.process.join(moments.uniform(0.0, 0.3))
        command.send(signal.SIGKILL)
        assert command.wait() == 128 + signal.SIGKILL, command.text
        reached = max(json.loads(line)["metrics"]["train/epoch"] for line in journal(work, "train/epoch"))
        assert max(work.states()) >= reached - 10
        arguments = ["run", "--resume", work.run_id]
    assert work.status(work.run_id) == "RUNNING"  # nobody could say anything else
    assert '"KILLED"' in work.run("runs", "--json")
    assert work.status(work.run_id) == "KILLED"
    (work.run_folder / "resume" / ".epoch-000010.123.tmp").mkdir()  # as a kill in the middle of writing leaves it
    last = int(reached) + 13
    work.run(*arguments, "--epochs", last)
    assert not [path for path in work.run_folder.glob("*/.*") if path.is_dir()]
    assert_continues_as_if_never_interrupted(work, new_workplace, last)


def journal(work, text):
    lines = (work.run_folder / "tracking" / "journal.jsonl").read_text().splitlines()
    return [line for line in lines if text in line and line.endswith("}")]


@pytest.mark.slow
def test_the_installed_command_too(work):
    """Once without the fork server: the interpreter starts, imports and ends as a user's does."""
    program = [sys.executable, "-c", "from flowmbpo.cli.app import main; main()", "run", "small", "--json"]
    with subprocess.Popen(program, cwd=work.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        while "epoch " not in (line := child.stderr.readline()):
            assert line, "ended before its first epoch"
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate(timeout=120)
    assert child.returncode == 130
    (result,) = json.loads(out)
    assert result["status"] == "KILLED"
    assert result["exit_code"] == 130
    assert work.states() == [result["epochs"]]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_training_ends_the_command_plainly(work, signum):
    command = work.start("run", "small", before=hang_before_training)
    work.until(lambda: "hanging" in command.text, command)
    command.send(signum)
    assert command.wait() == 128 + signum
    assert "Traceback" not in command.text
    assert not (work.folder / "runs").exists()


def hang_before_training():
    import time

    from flowmbpo.training import session

    def choose(device):
        print("hanging", flush=True)
        time.sleep(1000)

    session.choose_device = choose
