"""Commands in a working directory that was deleted."""

import subprocess
import sys

import pytest

GONE = (
    "import os, sys; os.mkdir(sys.argv[1]); os.chdir(sys.argv[1]); os.rmdir(sys.argv[1]); sys.argv[:2] = ['flowmbpo']"
)


@pytest.mark.parametrize("command", ["list", "runs", "run pointmass --epochs 1", "jobs", "compare pointmass", "sync"])
def test_a_deleted_directory_is_one_message(tmp_path, command):
    code = f"{GONE}; from flowmbpo.cli.app import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "gone"), *command.split()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: the working directory")
    assert "Traceback" not in done.stderr
