"""Where output goes: pipes whose reader is gone, full disks, closed descriptors, FORCE_COLOR."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import PROGRAM


def shell(command: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A line of bash in which `flowmbpo` is ours; any process of a pipe that fails makes it fail."""
    line = f'set -o pipefail; flowmbpo() {{ "{sys.executable}" -m flowmbpo "$@"; }}; {command}'
    environment = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "NO_COLOR")}
    return subprocess.run(
        ["bash", "-c", line], cwd=cwd, env=environment | variables, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("command", ["show quickstart", "list --json", "--help"])
def test_a_reader_that_goes_early_is_no_failure(tmp_path, command):
    # The reader is gone before a word is written.
    done = shell(f"flowmbpo {command} | true", tmp_path)
    assert done.returncode == 0
    assert "Error" not in done.stderr


@pytest.mark.parametrize("command", ["show quickstart", "list --json", "--help", "schema"])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_one_message(tmp_path, command):
    done = shell(f"flowmbpo {command} > /dev/full", tmp_path)
    assert done.returncode == 1
    assert done.stderr == "failed: standard output cannot be written: No space left on device\n"


def test_a_full_disk_changes_no_other_exit_code(tmp_path):
    assert shell("flowmbpo show nonsense > /dev/full", tmp_path).returncode == 2
    assert shell("flowmbpo show nonsense > /dev/full 2>&1", tmp_path).returncode == 2


def test_closed_descriptors_are_no_failure(tmp_path):
    done = shell("flowmbpo list --json >&- 2>&-", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_full_pipe_that_does_not_block_loses_nothing(tmp_path):
    read, write = os.pipe()
    os.set_blocking(write, False)
    command = subprocess.Popen([*PROGRAM, "schema"], cwd=tmp_path, stdout=write)
    os.close(write)
    with open(read, encoding="utf-8") as file:
        document = json.load(file)
    assert command.wait() == 0
    assert "experiments" in document["properties"]


def test_force_color_colours_a_pipe_and_folds_nothing(tmp_path):
    plain = shell("flowmbpo list", tmp_path, COLUMNS="80").stdout
    coloured = shell("flowmbpo list", tmp_path, COLUMNS="80", FORCE_COLOR="1").stdout
    assert "\x1b[" in coloured
    assert len(coloured.splitlines()) == len(plain.splitlines())
    assert "48M-flow-v2" in coloured


def test_force_color_on_a_pipe_shows_no_progress_bar(tmp_path, monkeypatch):
    from flowmbpo.cli import progress

    monkeypatch.setenv("FORCE_COLOR", "1")
    with open(tmp_path / "log", "w") as file:
        monkeypatch.setattr(progress.tables, "err", progress.tables.Console(file=file))
        assert isinstance(progress.watcher(), progress.PlainDisplay)
    own, terminal = pty.openpty()
    with open(terminal, "w") as file:
        monkeypatch.setattr(progress.tables, "err", progress.tables.Console(file=file))
        assert isinstance(progress.watcher(), progress.LiveDisplay)
    os.close(own)
