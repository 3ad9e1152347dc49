"""Where compiled kernels are kept when the usual place cannot be written, as in containers and on CI machines."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

START = (
    "import sys, tempfile\n"
    "tempfile.tempdir = sys.argv[1]\n"
    "from flowmbpo.physics.runtime import start_warp\n"
    "start_warp()\n"
    "import warp; print(warp.config.kernel_cache_dir)\n"
)


def start(temporary: Path | str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Starts Warp in a process of its own, with `temporary` as the folder for temporary files."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("WARP_CACHE_PATH", "XDG_CACHE_HOME")
    }
    return subprocess.run(
        [sys.executable, "-c", START, str(temporary)],
        capture_output=True,
        text=True,
        env=environment | variables,
        cwd="/",
        check=False,
    )


@pytest.mark.parametrize("variables", [{"HOME": "/dev/null"}, {"WARP_CACHE_PATH": "/proc/nowhere"}])
def test_another_folder_is_used_and_named(tmp_path, variables):
    done = start(tmp_path, **variables)
    (folder,) = tmp_path.iterdir()
    assert done.stdout.strip().startswith(str(folder))
    assert str(folder) in done.stderr
    assert "WARP_CACHE_PATH" in done.stderr
    assert "Traceback" not in done.stderr
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert start(tmp_path, **variables).stdout == done.stdout  # and the next process finds what this one compiled


def test_a_folder_that_others_may_write_is_not_trusted(tmp_path):
    foreign = tmp_path / f"flowmbpo-warp-{os.getuid()}"
    foreign.mkdir()
    foreign.chmod(0o777)
    assert not start(tmp_path, HOME="/dev/null").stdout.startswith(f"{foreign}/")


def test_a_home_that_can_be_written_is_used_without_a_word(tmp_path):
    done = start("/dev/null", HOME=str(tmp_path))
    assert done.stdout.startswith(f"{tmp_path}/.cache/warp/")
    assert "WARP_CACHE_PATH" not in done.stderr


def test_no_folder_at_all_is_one_message_that_names_the_variable():
    done = start("/dev/null", HOME="/dev/null")
    assert "UserError" in done.stderr.splitlines()[-1]
    assert "WARP_CACHE_PATH=FOLDER" in done.stderr.splitlines()[-1]
