"""Whole runs on a GPU, by the commands that a user types; without one they are skipped."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from tests.command import run_process

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

REGISTRY = Path(__file__).resolve().parents[2] / "experiments.toml"
SMALL = {
    "train.num_envs": "16",
    "train.horizon": "4",
    "train.allow_short_horizon": "true",
    "train.warmup_epochs": "1",
    "train.wm_first_updates": "3",
    "train.wm_batch_size": "32",
    "train.replay_capacity": "4000",
    "train.log_interval": "2",
    "actor.imagined_batch_size": "32",
    "evaluation.episodes": "4",
    "evaluation.interval": "4",
    "env.episode_length": "40",
}
SET = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]


def flowmbpo(folder: Path, *arguments: object) -> str:
    return run_process(*arguments, folder=folder).out


@pytest.mark.parametrize(
    ("name", "precision"),
    [("5M-flow-v2", "bfloat16"), ("noisy-ensemble", "float32"), ("mini-oracle", "float32"), ("shac-quick", "float32")],
)
def test_trains_goes_on_and_is_judged_without_a_gpu(tmp_path, name, precision):
    changes = [*SET, "--set", f"train.precision={precision}"]
    run = ("run", name, "--registry", REGISTRY, "--device", "cuda", *changes)
    flowmbpo(tmp_path, *run, "--epochs", 4)
    (found,) = json.loads(flowmbpo(tmp_path, "runs", "--json"))
    flowmbpo(tmp_path, "run", "--resume", found["run_id"], "--device", "cuda", "--epochs", 8)
    (found,) = json.loads(flowmbpo(tmp_path, "runs", "--json"))
    assert (found["status"], found["epoch"]) == ("FINISHED", 8)
    (judged,) = json.loads(flowmbpo(tmp_path, "eval", found["run_id"], "--device", "cpu", "--json"))
    assert math.isfinite(judged["mean_reward"])


def test_is_reproduced_to_the_bit(tmp_path):
    flowmbpo(tmp_path, "run", "mini-flow-v1", "--registry", REGISTRY, "--device", "cuda", "--epochs", 8, *SET)
    (found,) = json.loads(flowmbpo(tmp_path, "runs", "--json"))
    assert "equal to the bit" in flowmbpo(tmp_path, "reproduce", found["run_id"], "--check")
