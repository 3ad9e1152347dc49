"""`flowmbpo run --dry-run` finds what can be found without training."""

import pytest

from tests.command import run_process

PRETRAIN = ["--set", 'train.pretrain={data="nope.safetensors",updates=1}']


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        (["--resume", "nonsense"], "nonsense"),
        (["pointmass", "--device", "tpu"], "tpu"),
        (["pointmass", "--tracking-uri", "ftp://somewhere"], "ftp"),
        (["pointmas"], "pointmass"),
        (["pointmass", "--set", "train.horizon=4"], "horizon"),
        (["pointmass", "--seeds", "0,0"], "twice"),
        (["pointmass", "--time-limit", "soon"], "soon"),
        (["pointmass", *PRETRAIN], "there is no file nope.safetensors"),
        ([], "name at least one"),
    ],
)
def test_mistakes_are_found(tmp_path, arguments, culprit):
    result = run_process("run", *arguments, "--dry-run", folder=tmp_path, code=2)
    assert culprit in result.err
    assert not list(tmp_path.iterdir())


def test_the_plan(tmp_path):
    plan = run_process("run", "pointmass", "flow-v2", "--seeds", "3,4", "--json", "--dry-run", folder=tmp_path).json()
    assert [row["run_name"] for row in plan] == [
        "pointmass/seed-3",
        "pointmass/seed-4",
        "48M-flow-v2/seed-3",
        "48M-flow-v2/seed-4",
    ]


LONGER_THAN_TRAINED = ["latent-baseline", "--set", "train.wm_sequence_length=8"]


def test_what_is_doubtful_is_said_before_anything_is_trained(tmp_path):
    result = run_process("run", *LONGER_THAN_TRAINED, "--dry-run", "--json", folder=tmp_path)
    assert "warning: " in result.err
    assert "train.wm_sequence_length = 8" in result.err
    assert "drifts off" in result.err
    assert len(result.json()) == 1


def test_an_experiment_is_trained_once_whatever_it_is_called(tmp_path):
    plan = run_process("run", "flow-v2", "48M-flow-v2", "--json", "--dry-run", folder=tmp_path).json()
    assert [row["run_name"] for row in plan] == ["48M-flow-v2/seed-0"]
