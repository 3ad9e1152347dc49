"""`flowmbpo record` on a run that was really trained, and a run that learns from what it wrote."""

import shutil

import pytest
import torch

from flowmbpo.runs.tensors import read_tensors
from flowmbpo.tracking.reader import open_reader
from flowmbpo.tracking.store import resolve_store
from tests.cli.point import REGISTRY

LENGTH = 20  # of an episode of `point`; none ends early


@pytest.fixture
def record(flowmbpo, trained_point, tmp_path, monkeypatch):
    """`flowmbpo record point --out NAME ...`: the tensors of the file, and what the command said."""
    monkeypatch.chdir(trained_point)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def run(name, *arguments):
        done = flowmbpo("record", "point", "--out", tmp_path / name, "--device", "cpu", *arguments)
        assert done.code == 0, done.text
        return read_tensors(tmp_path / name), done

    return run


def test_the_document_says_what_is_in_the_file(record, trained_point, tmp_path):
    tensors, done = record("data", "--episodes", 3, "--noise", "0,0.5", "--json")
    (folder,) = (trained_point / "runs").iterdir()
    rewards = tensors["rewards"]
    assert done.json() == {
        "file": str(tmp_path / "data"),
        "run_id": folder.name,
        "epoch": done.json()["epoch"],
        "episodes": 3,
        "transitions": 3 * LENGTH,
        "mean_reward": pytest.approx(rewards.sum(0).mean().item(), rel=1e-5),
        "noise": [0.0, 0.5],
    }
    assert done.json()["epoch"] in (2, 4)  # the best one
    assert rewards.shape == (LENGTH, 3)
    _, again = record("again", "--episodes", 3, "--noise", "0,0.5")
    assert f"again: 3 episodes with {3 * LENGTH} transitions" in again.err
    assert (tmp_path / "data").read_bytes() == (tmp_path / "again").read_bytes()


def test_noise_changes_the_actions_of_its_episodes(record):
    calm, mixed = (record(noise, "--episodes", 4, "--noise", noise)[0]["actions"] for noise in ("0", "0,0.5"))
    assert torch.equal(calm[:, ::2], mixed[:, ::2])
    difference = (mixed - calm)[:, 1::2]
    assert 0.2 < difference.std() < 0.6  # clipped at the limits of an action
    other = record("other", "--episodes", 4, "--noise", "0", "--seed", 1)[0]["actions"]
    assert not torch.equal(calm, other)


def test_a_run_learns_from_the_file_first(flowmbpo, record, tmp_path, monkeypatch, empty_database):
    record("data", "--episodes", 8)
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    (tmp_path / "experiments.toml").write_text(REGISTRY)
    monkeypatch.chdir(tmp_path)
    pretrain = 'train.pretrain={data="data", updates=7}'
    done = flowmbpo("run", "point", "--epochs", 2, "--device", "cpu", "--set", pretrain)
    assert done.code == 0, done.text
    (run,) = open_reader(resolve_store(None)).runs()
    assert run.status == "FINISHED"
    assert run.metrics["train/updates"].value == 7 + 2 * 2  # in place of the first epoch's many
