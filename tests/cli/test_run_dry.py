"""`flowmbpo run --dry-run` finds what can be found without training."""

import json
import subprocess
import sys

import pytest

PRETRAIN = ["--set", 'train.pretrain={data="nope.safetensors",updates=1}']


def dry(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "flowmbpo", "run", *arguments, "--dry-run"],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )


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
    result = dry(*arguments, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert culprit in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_the_plan(tmp_path):
    result = dry("pointmass", "flow-v2", "--seeds", "3,4", "--json", cwd=tmp_path)
    plan = json.loads(result.stdout)
    assert [row["run_name"] for row in plan] == [
        "pointmass/seed-3",
        "pointmass/seed-4",
        "48M-flow-v2/seed-3",
        "48M-flow-v2/seed-4",
    ]
