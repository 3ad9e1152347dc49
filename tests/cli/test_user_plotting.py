"""The user's own Matplotlib settings neither change our pictures nor end a run that has done its work."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.point import REGISTRY
from tests.command import run_process

SETTINGS = {
    "latex": b"text.usetex: True\n",
    "backend": b"backend: nonsense\n",
    "style": b"font.size: 40\nfigure.facecolor: red\nsavefig.dpi: 10\naxes.prop_cycle: cycler(color='r')\n",
    "bytes": b"\xff\xfe\x00",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with two runs, made under settings that need LaTeX and a backend that does not exist."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "experiments.toml").write_text(REGISTRY)
    (folder / "settings").write_bytes(SETTINGS["latex"])
    variables = {"MATPLOTLIBRC": str(folder / "settings"), "MPLBACKEND": "nonsense"}
    done = run_process("run", "point", "--seeds", "0,1", folder=folder, variables=variables)
    assert "warning" not in done.err
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
        done = run_process("compare", "point", "--plot", str(target), folder=trained, variables=variables)
        assert "matplotlib" not in done.err.lower()
        pictures.append(target.read_text().replace(str(target), ""))
    assert pictures[0].split("</metadata>")[1] == pictures[1].split("</metadata>")[1]


def test_settings_in_the_working_directory_that_cannot_be_read_are_one_message(trained):
    (trained / "matplotlibrc").write_bytes(SETTINGS["bytes"])
    try:
        for command in (["compare", "point", "--plot", "x.png"], ["report", "--out", "x.html"]):
            done = run_process(*command, folder=trained, code=1)
            assert "failed: no picture can be drawn" in done.err
        done = run_process("run", "point", "--seeds", "2,3", "--json", folder=trained)
        assert done.out.count('"FINISHED"') == 2
        assert done.err.count("warning: no learning curve") == 2
    finally:
        (trained / "matplotlibrc").unlink()
