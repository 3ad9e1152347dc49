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
