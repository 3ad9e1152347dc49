"""The commit of the code that runs: in checkouts under all circumstances, in wheels and source archives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from flowmbpo.tracking import provenance
from flowmbpo.tracking.code_state import COMMIT_FILE, state_of

REPOSITORY = Path(__file__).resolve().parents[2]


def git(folder: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e@e", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()


def make_checkout(folder: Path) -> Path:
    """A git repository with one commit of the files in `folder`."""
    folder.mkdir(exist_ok=True)
    (folder / "a.py").write_text("x = 1\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", str(folder))
    return folder


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return make_checkout(tmp_path / "code")


def test_a_checkout_is_asked(checkout):
    clean = state_of(checkout)
    assert clean.commit == git(checkout, "rev-parse", "HEAD")
    assert (clean.dirty, clean.reason) == (False, "")
    (checkout / "a.py").write_text("x = 2\n")
    dirty = provenance.collect(checkout).code
    assert dirty.dirty
    assert "-x = 1" in dirty.diff
    assert "+x = 2" in dirty.diff


def test_the_patch_applies_however_the_user_likes_to_look_at_differences(checkout, tmp_path, monkeypatch):
    liking = "[color]\nui = always\n[diff]\nnoprefix = true\nmnemonicPrefix = true\nexternal = /bin/false\n"
    (tmp_path / ".gitconfig").write_text(liking)
    monkeypatch.setenv("HOME", str(tmp_path))
    (checkout / "a.py").write_text("x = 2\n")
    patch = tmp_path / "uncommitted.diff"
    status, _, changes = state_of(checkout).diff.partition("\n")
    assert status == "M a.py"
    patch.write_text(changes + "\n")
    git(checkout, "checkout", "-q", "a.py")
    git(checkout, "apply", str(patch))
    assert (checkout / "a.py").read_text() == "x = 2\n"


def test_variables_of_git_mean_another_repository(checkout, tmp_path, monkeypatch):
    other = make_checkout(tmp_path / "other")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / "none"))
    found = state_of(checkout)
    assert found.commit == git(checkout, "rev-parse", "HEAD") != git(other, "rev-parse", "HEAD")
    assert not found.dirty


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_a_checkout_of_another_owner_is_asked_too(checkout, monkeypatch):
    for path in (checkout, *checkout.rglob("*")):
        os.chown(path, 12345, 12345)
    monkeypatch.setenv("HOME", "/nonexistent")
    assert len(state_of(checkout).commit) == 40


def test_every_way_not_to_know_has_its_reason(checkout, tmp_path, monkeypatch):
    assert "kept no commit" in state_of(tmp_path).reason
    (checkout / ".git" / "HEAD").write_text("nonsense")
    assert "not a git repository" in state_of(checkout).reason
    monkeypatch.setenv("PATH", "")
    assert "no program git" in state_of(checkout).reason
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    found = provenance.collect(checkout)
    assert found.tags()["flowmbpo.git_commit"] == "unknown"
    assert "no program git" in found.tags()["flowmbpo.git_unknown"]
    assert found.tags()["flowmbpo.slurm_job_id"] == "77"
    assert found.document()["reason"]
    assert found.cpu_count >= 1


@pytest.fixture(scope="module")
def builds(tmp_path_factory) -> Path:
    """A folder with `source`, a small checkout built as this package is, and `dist`: its wheel, a source archive made
    of it, and `again`: the wheel made of that archive."""
    pytest.importorskip("hatchling", reason="builds need hatchling")
    folder = tmp_path_factory.mktemp("builds")
    source = folder / "source"
    files = ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", "experiments.toml", "flowmbpo/__init__.py")
    for name in (*files, "flowmbpo/tracking/__init__.py", "flowmbpo/tracking/code_state.py"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((REPOSITORY / name).read_bytes())
    make_checkout(source)
    build(source, folder / "dist", "wheel")
    build(source, folder / "dist", "sdist")
    (archive,) = (folder / "dist").glob("*.tar.gz")
    subprocess.run(["tar", "-xzf", archive, "-C", folder], check=True)
    (unpacked,) = (path for path in folder.iterdir() if path.name not in ("source", "dist"))
    build(unpacked, folder / "again", "wheel")
    return folder


def build(source: Path, target: Path, kind: str) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(target)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)


@pytest.mark.parametrize("where", ["dist", "again"])
def test_a_wheel_knows_the_commit_it_was_built_from(builds, where, tmp_path):
    (wheel,) = (builds / where).glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path)
    found = state_of(tmp_path)
    assert found.commit == git(builds / "source", "rev-parse", "HEAD")
    assert (found.dirty, found.reason) == (False, "")


def test_building_leaves_no_commit_file_in_the_checkout(builds):
    assert not list((builds / "source").rglob(COMMIT_FILE))
    assert git(builds / "source", "status", "--porcelain") == ""


def test_a_wheel_built_without_git_says_so(builds, tmp_path):
    target = tmp_path / "wheel"
    source = tmp_path / "source"
    subprocess.run(["cp", "-r", builds / "source", source], check=True)
    subprocess.run(["rm", "-rf", source / ".git"], check=True)
    build(source, target, "wheel")
    (wheel,) = target.glob("*.whl")
    commit = json.loads(zipfile.ZipFile(wheel).read(f"flowmbpo/{COMMIT_FILE}"))
    assert commit["commit"] == ""
    assert "no git checkout" in commit["reason"]
