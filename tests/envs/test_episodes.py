"""Whole episodes: returns and lengths of two simple policies against those recorded from the reference."""

from __future__ import annotations

import json

import pytest
import torch

from flowmbpo.envs import AntEnv


def episodes(mode: str, num_envs: int = 1024) -> tuple[torch.Tensor, torch.Tensor]:
    """Return and length of the first episode of every environment."""
    env = AntEnv(num_envs, seed=123)
    env.reset()
    generator = torch.Generator().manual_seed(5)
    running = torch.ones(num_envs, dtype=torch.bool)
    total, length = torch.zeros(num_envs, dtype=torch.float64), torch.zeros(num_envs)
    action = torch.zeros(num_envs, 8)
    while running.any():
        if mode == "random":
            action = 2 * torch.rand(num_envs, 8, generator=generator) - 1
        step = env.step(action)
        total += running * step.reward
        length += running
        running &= ~(step.terminated | step.truncated)
    return total, length


@pytest.mark.parametrize(("mode", "about"), [("zero", 160.0), ("random", 110.0)])
def test_returns_are_those_of_the_reference(mode, about, shared_dir):
    recorded = json.loads((shared_dir / "golden" / "episode_stats.json").read_text())
    total, length = episodes(mode)
    assert total.mean() == pytest.approx(about, rel=0.1)
    for entry in (entry for entry in recorded if entry["mode"] == mode):
        for own, mean, std in ((total, "return_mean", "return_std"), (length, "len_mean", "len_std")):
            error = (entry[std] ** 2 / entry["episodes"] + float(own.var()) / len(own)) ** 0.5
            assert abs(float(own.mean()) - entry[mean]) < 4 * error, (entry["seed"], mean)
            assert float(own.std()) == pytest.approx(entry[std], rel=0.35)
