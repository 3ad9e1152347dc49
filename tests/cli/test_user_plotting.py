"""The user's own Matplotlib settings neither change our pictures nor end a run that has done its work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from point import REGISTRY

SETTINGS = {
    "latex": b"text.usetex: True\n",
    "backend": b"backend: nonsense\n",
    "style": b"font.size: 40\nfigure.facecolor: red\nsavefig.dpi: 10\naxes.prop_cycle: cycler(color='r')\n",
    "bytes": b"\xff\xfe\x00",
}


def flowmbpo(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flowmbpo", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with two runs, made under settings that need LaTeX and a backend that does not exist."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "experiments.toml").write_text(REGISTRY)
    (folder / "settings").write_bytes(SETTINGS["latex"])
    done = flowmbpo(
        folder, "run", "point", "--seeds", "0,1", MATPLOTLIBRC=str(folder / "settings"), MPLBACKEND="nonsense"
    )
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    return folder


def test_runs_get_their_pictures(trained):
    for run in (trained / "runs").iterdir():
        assert (run / "artifacts" / "learning_curve.png").is_file()
        assert (run / "artifacts" / "replay.html").is_file()


@pytest.mark.parametrize("name", SETTINGS)
def test_pictures_are_the_same_with_any_settings(trained, tmp_path, name):
    settings = tmp_path / "settings"
    settings.write_bytes(SETTINGS[name])
    pictures = []
    for variables in ({}, {"MATPLOTLIBRC": str(settings)}):
        target = tmp_path / f"{len(pictures)}.svg"
        done = flowmbpo(trained, "compare", "point", "--plot", str(target), **variables)
        assert done.returncode == 0, done.stderr
        assert "matplotlib" not in done.stderr.lower()
        pictures.append(target.read_text().replace(str(target), ""))
    assert pictures[0].split("</metadata>")[1] == pictures[1].split("</metadata>")[1]


def test_settings_in_the_working_directory_that_cannot_be_read_are_one_message(trained):
    (trained / "matplotlibrc").write_bytes(SETTINGS["bytes"])
    try:
        for command in (["compare", "point", "--plot", "x.png"], ["report", "--out", "x.html"]):
            done = flowmbpo(trained, *command)
            assert done.returncode == 1
            assert "failed: no picture can be drawn" in done.stderr
            assert "Traceback" not in done.stderr
        done = flowmbpo(trained, "run", "point", "--seeds", "2,3", "--json")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count('"FINISHED"') == 2
        assert done.stderr.count("warning: no learning curve") == 2
    finally:
        (trained / "matplotlibrc").unlink()
