"""`flowmbpo render` on a run that was really trained, and the replay that every finished run gets."""

import shutil

import pytest
from PIL import Image

from flowmbpo.errors import UserError
from flowmbpo.tracking.run_tracker import RunDescription, start_run
from flowmbpo.tracking.store import resolve_store


@pytest.fixture
def here(trained_point, tmp_path, monkeypatch):
    """The working directory is that folder; its state afterwards is what it was."""
    monkeypatch.chdir(trained_point)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copytree(trained_point / "runs", tmp_path / "runs")  # to restore from
    yield trained_point
    shutil.rmtree(trained_point / "runs", ignore_errors=True)
    shutil.copytree(tmp_path / "runs", trained_point / "runs")
    for entry in trained_point.iterdir():
        if entry.name.lower().startswith(("r.", "replay.")):
            entry.unlink()


@pytest.fixture
def run_id(here):
    (folder,) = (here / "runs").iterdir()
    return folder.name


def test_every_finished_run_keeps_a_replay(here, run_id):
    kept = list((here / "mlartifacts").rglob("replay.html"))
    assert len(kept) == 1
    assert "point/seed-0" in kept[0].read_text()
    assert (here / "runs" / run_id / "artifacts" / "replay.html").read_bytes() == kept[0].read_bytes()


@pytest.mark.parametrize("length", [4, 12])
def test_a_name_and_the_beginning_of_an_id_mean_the_run(flowmbpo, here, run_id, length):
    for selector in ("point", run_id[:length]):
        assert flowmbpo("render", selector, "--out", "r.html", "--steps", 2).code == 0
        assert "point seed 0" in flowmbpo("watch", selector).out


def test_a_page_a_film_and_a_picture(flowmbpo, here, run_id):
    for name in ("replay.html", "replay.mp4", "REPLAY.GIF"):
        outcome = flowmbpo("render", run_id, "--out", name, "--steps", 5)
        assert outcome.code == 0, outcome.text
        assert outcome.out == ""
        assert f"{name}: point/seed-0, R " in outcome.err
        assert "in 5 steps" in outcome.err
    assert "<canvas" in (here / "replay.html").read_text()
    assert (here / "replay.mp4").read_bytes()[4:8] == b"ftyp"
    with Image.open(here / "REPLAY.GIF") as picture:
        assert picture.format == "GIF"


@pytest.mark.parametrize(("which", "epoch"), [("last", 4), ("2", 2), ("4", 4)])
def test_the_checkpoint_asked_for(flowmbpo, here, run_id, which, epoch):
    assert flowmbpo("render", run_id, "--out", "r.html", "--checkpoint", which).code == 0
    assert f'["checkpoint","epoch {epoch}"]' in (here / "r.html").read_text()


def test_the_seed_decides_the_start(flowmbpo, here, run_id):
    pages = []
    for seed in (1, 1, 2):
        assert flowmbpo("render", run_id, "--out", "r.html", "--seed", seed).code == 0
        pages.append((here / "r.html").read_text())
    assert pages[0] == pages[1]
    assert pages[0] != pages[2]


def test_the_files_may_be_in_the_artifact_store_only(flowmbpo, here, run_id):
    shutil.rmtree(here / "runs")
    outcome = flowmbpo("render", run_id, "--out", "r.html")
    assert outcome.code == 0, outcome.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "r.avi"], r"must end in .html, .mp4 or .gif"),
        (["--out", "nowhere/r.gif"], "there is no folder"),
        (["--out", "folder.html"], "is a folder"),
        (["--out", "r.html", "--checkpoint", "3"], "no such checkpoint; allowed are best, last, 2, 4"),
        (["--out", "r.html", "--checkpoint", "worst"], "allowed are best, last, 2, 4"),
        (
            ["--out", "r.html", "--checkpoint", "all"],
            "one checkpoint is wanted here; allowed are best, last, 2, 4",
        ),
        (["--out", "r.html", "--device", "abacus"], "abacus"),
    ],
)
def test_mistakes_are_answered(flowmbpo, here, run_id, arguments, message):
    (here / "folder.html").mkdir(exist_ok=True)
    before = sorted(entry.name for entry in here.iterdir())
    outcome = flowmbpo("render", run_id, *arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert sorted(entry.name for entry in here.iterdir()) == before


def test_an_unknown_run(flowmbpo, here):
    outcome = flowmbpo("render", "feedbeef", "--out", "r.html")
    assert outcome.code == 2
    assert "feedbeef" in outcome.err
    assert "flowmbpo runs" in outcome.err


def test_an_empty_store(flowmbpo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    outcome = flowmbpo("render", "feedbeef", "--out", "r.html")
    assert outcome.code == 2
    assert "there are no runs" in outcome.err


def test_a_run_without_checkpoints(flowmbpo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    about = RunDescription("point", 0, {"train": {"horizon": 16}}, "h", "cpu")
    with start_run(resolve_store(None, tmp_path), about, tmp_path / "runs") as tracker:
        tracker.log({"train/episode_reward": 5.0}, step=10)
    outcome = flowmbpo("render", tracker.run_id, "--out", "r.html")
    assert outcome.code == 2
    assert "has no checkpoint yet" in outcome.err


def test_a_broken_checkpoint_fails_and_leaves_nothing(flowmbpo, here, run_id):
    for file in (here / "runs" / run_id / "checkpoints").rglob("tensors.safetensors"):
        file.write_bytes(file.read_bytes()[:-1])
    outcome = flowmbpo("render", run_id, "--out", "r.html")
    assert outcome.code == 1
    assert "truncated" in outcome.err
    assert not (here / "r.html").exists()


def test_the_replay_of_a_finished_run(here, run_id):
    from flowmbpo.api import draw_replay
    from flowmbpo.runs.layout import RunFiles

    files = RunFiles.of(run_id)
    assert draw_replay(files, "cpu").read_bytes().startswith(b"<!")
    shutil.rmtree(files.checkpoints)
    with pytest.raises(UserError, match="no checkpoint"):
        draw_replay(files, "cpu")
