"""Disks that fill up, cannot be written or go away under a whole command: what is said and what survives."""

import os
import shutil
import subprocess

import pytest

from flowmbpo.runs import checkpoint
from flowmbpo.runs.layout import RunFiles
from tests.training.commands import Workplace

SMALL_DISK = 3 << 20


@pytest.fixture
def small_disk(work):
    """The working directory on a file system of its own, of a few megabytes."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "none", str(work.folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a file system can only be mounted by root ({mounted.stderr.strip()})")
    yield work
    for command in work.commands:
        command.process.kill()
        command.process.join()
    subprocess.run(["umount", "--lazy", str(work.folder)], check=True)


def newest_state(folder):
    files = RunFiles(folder)
    state, problems = checkpoint.newest(files.resume, files.resume_epochs(), "resume")
    assert not problems
    assert state is not None
    return state


def test_a_full_disk_keeps_what_was_good_and_the_run_continues_elsewhere(small_disk, new_workplace):
    from tests.training.commands import REGISTRY

    (small_disk.folder / "experiments.toml").write_text(REGISTRY)
    command = small_disk.start("run", "small")
    small_disk.until(lambda: small_disk.epochs_logged() >= 11 and small_disk.states(), command)
    fill(small_disk.folder / "filler")
    assert command.wait() == 1, command.text
    assert "Traceback" not in command.text, command.text
    assert "No space left on device" in command.text
    run_id = small_disk.run_id
    assert f"flowmbpo run --resume {run_id}" in command.text
    assert small_disk.status(run_id) == "FAILED"

    elsewhere = Workplace(small_disk.folder.with_name("elsewhere"), small_disk.database)
    elsewhere.folder.mkdir()
    (elsewhere.folder / "experiments.toml").write_text(REGISTRY)
    shutil.copytree(small_disk.run_folder, elsewhere.folder / "runs" / run_id)
    epoch = newest_state(elsewhere.run_folder).epoch
    last = elsewhere.epochs_logged() + 3
    assert 10 <= epoch < last
    elsewhere.run("run", "--resume", run_id, "--epochs", last)
    whole = new_workplace("whole")
    whole.run("run", "small", "--epochs", last)
    assert elsewhere.histories(run_id) == whole.histories(whole.run_id)
    assert elsewhere.digests(run_id, last) == whole.digests(whole.run_id, last)
    assert elsewhere.status(run_id) == "FINISHED"


def fill(path):
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            pass
        try:
            while True:
                file.write(bytes(1))
        except OSError:
            pass


def test_a_read_only_directory_is_refused_at_the_start(small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk.folder)], check=True)
    said = small_disk.run("run", "pointmass", "--epochs", 1, code=2)
    assert "Read-only file system" in said
    assert said.count("error:") == 1
    said = small_disk.run("run", "pointmass", "--epochs", 1, "--tracking-uri", "sqlite:///mlflow.db", code=2)
    assert said.count("error:") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_permission_is_refused_at_the_start(work):
    work.folder.chmod(0o555)
    try:
        assert "Permission denied" in work.run("run", "small", "--epochs", 1, code=2)
    finally:
        work.folder.chmod(0o755)


@pytest.mark.parametrize("what", ["run", "everything"])
def test_a_directory_that_vanishes(work, what):
    command = work.start("run", "small")
    work.until(lambda: work.epochs_logged() >= 11 and work.states(), command)
    run_id = work.run_id
    copy = work.folder.with_name("copy")
    shutil.copytree(work.folder, copy)
    doomed = work.run_folder if what == "run" else work.folder
    while doomed.exists():  # the run may be writing there at this moment
        shutil.rmtree(doomed, ignore_errors=True)
    assert command.wait() == 1, command.text
    assert "Traceback" not in command.text, command.text
    assert "vanished" in command.text or "No such file or directory" in command.text
    assert work.status(run_id) == "FAILED"
    restored = Workplace(copy, work.database)
    last = newest_state(restored.run_folder).epoch + 2
    restored.run("run", "--resume", run_id, "--epochs", last)
    assert restored.status(run_id) == "FINISHED"
    (best,) = checkpoint.select(checkpoint.evaluated(RunFiles(restored.run_folder)), "best")
    assert best.epoch <= last
