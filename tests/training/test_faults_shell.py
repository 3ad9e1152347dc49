"""What the shell around a run does to it: a terminal or a reader that goes away, nohup, other numbers of threads; and
the target that a resumed run goes on to."""

import json
import os
import pty
import signal
import threading

import pytest
import torch

from flowmbpo.runs.journal import TARGET_TAG, THREADS_TAG, all_tags
from flowmbpo.runs.layout import RunFiles
from flowmbpo.training.compatibility import continue_on


def ignore_hangup():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def test_nohup_is_respected(work):
    command = work.start("run", "small", "--epochs", 30, before=ignore_hangup)
    work.until(lambda: work.epochs_logged() >= 2, command)
    command.send(signal.SIGHUP)
    assert command.wait() == 0, command.text
    assert work.states() == [30]


def write_to(descriptor_path):
    """Standard output and standard error go to what the file at this path is: a pipe or a terminal."""
    descriptor = os.open(descriptor_path, os.O_WRONLY | os.O_NOCTTY)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)


class GoesTo:
    """`write_to`, in another process."""

    def __init__(self, path):
        self.path = path

    def __call__(self):
        write_to(self.path)


def test_a_reader_that_goes_away_costs_its_lines_only(work, tmp_path):
    """As `flowmbpo run ... 2>&1 | head -1`, with a second seed to come."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    first = []
    reader = threading.Thread(target=lambda: first.append(open(pipe).readline()))  # noqa: SIM115 (closes at once)
    reader.start()
    command = work.start("run", "small", "--seeds", "0,1", "--epochs", 12, before=GoesTo(pipe))
    assert command.wait() == 0
    reader.join()
    assert "small: about" in first[0]  # what it will take
    states = sorted(str(path.name) for path in work.folder.glob("runs/*/resume/*"))
    assert states == ["epoch-000012"] * 2


def test_a_terminal_that_is_closed_costs_its_display_only(work):
    own, terminal = pty.openpty()
    command = work.start("run", "small", "--seeds", "0,1", "--epochs", 12, before=GoesTo(os.ttyname(terminal)))
    work.until(lambda: work.epochs_logged() >= 1, command)
    os.close(own)  # every write of the command is an error from now on
    os.close(terminal)
    assert command.wait() == 0
    assert len(list(work.folder.glob("runs/*/resume/epoch-000012"))) == 2


def test_a_run_goes_on_with_its_device_until_told_otherwise(work):
    work.run("run", "small", "--epochs", 3, "--device", "cpu")
    journal = RunFiles(work.run_folder).journal
    told = journal.read_text()
    journal.write_text(told.replace('"flowmbpo.device":"cpu"', '"flowmbpo.device":"GPU"'))
    assert journal.read_text() != told
    said = work.run("run", "--resume", work.run_id, "--epochs", 5, code=2)
    assert "computes on GPU" in said
    assert "--device cpu" in said
    said = work.run("run", "--resume", work.run_id, "--epochs", 5, "--device", "cpu")
    assert "device: GPU -> cpu" in said
    assert work.states() == [5]


def test_a_gpu_does_not_take_over_a_run_of_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "GPU")
    assert continue_on("cpu", "auto") == ("cpu", "")
    assert continue_on("", "auto") == ("cuda", "")
    device, said = continue_on("cpu", "cuda")
    assert device == "cuda"
    assert "cpu -> GPU" in said


def test_resume_goes_on_to_the_target_until_told_otherwise(work):
    command = work.start("run", "small", "--epochs", 30)
    work.until(lambda: work.epochs_logged() >= 3, command)
    command.send(signal.SIGTERM)
    command.wait()
    assert json.loads(work.run("runs", "--json"))[0]["max_epochs"] == 30
    work.run("run", "--resume", work.run_id[:12])  # as `runs` shows it
    assert work.states() == [30]
    said = work.run("run", "--resume", work.run_id)
    assert "epoch 30 was its target" in said
    assert work.states() == [30]
    work.run("run", "--resume", work.run_id, "--epochs", 33)
    assert work.states() == [33]
    work.run("run", "--resume", work.run_id)
    assert work.states() == [33]  # the new target counts from now on


def two_threads():
    import torch

    torch.set_num_threads(2)


def test_a_run_goes_on_with_its_number_of_threads(work):
    work.run("run", "small", "--epochs", 2, before=two_threads)
    journal = RunFiles(work.run_folder).journal
    assert all_tags(journal)[THREADS_TAG] == "2"
    said = work.run("run", "--resume", work.run_id, "--epochs", 3)  # with one thread, were it a new run
    assert "with 2 threads as before, not 1" in said
    assert all_tags(journal)[THREADS_TAG] == "2"
    said = work.run("run", "--resume", work.run_id, "--epochs", 4, "--accept-changes")
    assert "threads: 2 -> 1" in said
    assert all_tags(journal)[THREADS_TAG] == "1"


def test_a_run_uses_no_more_threads_than_the_cpus_it_asks_for(work):
    work.run("run", "small", "--epochs", 1, "--set", "resources.cpus=1", before=two_threads)
    assert all_tags(RunFiles(work.run_folder).journal)[THREADS_TAG] == "1"


@pytest.mark.parametrize("text", ["0", "many"])
def test_a_number_of_threads_that_is_none_is_not_compared(work, text):
    from flowmbpo.runs.journal import Journal, Tags

    work.run("run", "small", "--epochs", 2)
    journal = Journal(RunFiles(work.run_folder).journal)
    journal.append(Tags({THREADS_TAG: text, TARGET_TAG: text}))
    journal.close()
    assert "threads" not in work.run("run", "--resume", work.run_id, "--epochs", 3)
