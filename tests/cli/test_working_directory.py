"""Commands in a working directory that was deleted."""

import sys

import pytest

from tests.command import run_process

GONE = (
    "import os, sys; os.mkdir(sys.argv[1]); os.chdir(sys.argv[1]); os.rmdir(sys.argv[1]); sys.argv[:2] = ['flowmbpo']"
)


@pytest.mark.parametrize("command", ["list", "runs", "run pointmass --epochs 1", "jobs", "compare pointmass", "sync"])
def test_a_deleted_directory_is_one_message(tmp_path, command):
    code = f"{GONE}; from flowmbpo.cli.app import main; main()"
    program = [sys.executable, "-c", code, str(tmp_path / "gone")]
    done = run_process(*command.split(), program=program, code=2)
    assert done.err.startswith("error: the working directory")
    assert "Traceback" not in done.err
