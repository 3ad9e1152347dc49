"""Evaluation: the real environment, fixed seeds, the deterministic policy, full episodes. One function for all callers.

The world model's own prediction of the same episodes is reported beside the result and never instead of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from flowmbpo.algorithms.contract import Policy
from flowmbpo.algorithms.held_out import HeldOut
from flowmbpo.envs.contract import Env
from flowmbpo.tracking.evaluations import EvaluationProtocol

VERSION = 1  # raised whenever the numbers of an evaluation could change; older results are then out of date
_SYNC_EVERY = 25  # control steps between looks at whether every episode has ended


@dataclass(frozen=True)
class Evaluation:
    """Result over full episodes: the figures by their names in the catalogue of metrics, and how they were obtained."""

    how: EvaluationProtocol
    metrics: dict[str, float]

    @property
    def mean_reward(self) -> float:
        return self.metrics["eval/mean_reward"]


class Evaluator:
    """Holds the evaluation environments, so that every evaluation starts from the same states."""

    def __init__(self, env: Env, seed: int) -> None:
        self.env = env
        self.seed = seed
        self._start = env.state_dict()

    @torch.no_grad()
    def __call__(self, policy: Policy, held_out: HeldOut | None = None) -> Evaluation:
        """Run one full episode in each environment; later episodes of the same environment do not count.

        `held_out` is filled with what happened, instead of what it held.
        """
        env = self.env
        env.load_state_dict(self._start)
        obs = env.reset()
        if held_out is not None:
            held_out.begin(obs)
        policy.begin(env.num_envs)
        alive = torch.ones(env.num_envs, device=obs.device)
        reward, predicted, length, speed, fell = (torch.zeros_like(alive) for _ in range(5))
        for count in range(1, env.episode_length + 1):
            if env.forward_velocity_index is not None:
                speed += alive * obs[:, env.forward_velocity_index]
            actions, predicted_reward = policy.act(obs)
            predicted += alive * predicted_reward
            step = env.step(actions)
            if held_out is not None:
                held_out.add(actions, step, alive)
            reward += alive * step.reward
            length += alive
            fell += alive * step.terminated
            alive = alive * ~(step.terminated | step.truncated)
            obs = step.obs
            if count % _SYNC_EVERY == 0 and not alive.any():
                break
        shares = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], device=reward.device)
        q05, q25, median, q75, q95 = torch.quantile(reward, shares)
        moves = env.forward_velocity_index is not None
        figures = {
            "mean_reward": reward.mean(),
            "std_reward": reward.std(correction=0),
            "median_reward": median,
            "q05_reward": q05,
            "q25_reward": q25,
            "q75_reward": q75,
            "q95_reward": q95,
            "min_reward": reward.min(),
            "max_reward": reward.max(),
            "mean_length": length.mean(),
            "fall_share": fell.mean(),
            **({"forward_speed": speed.sum() / length.sum()} if moves else {}),
            "model_predicted_reward": predicted.mean(),
        }
        return Evaluation(
            protocol(self.seed, env.num_envs), {f"eval/{name}": value.item() for name, value in figures.items()}
        )


def protocol(seed: int, episodes: int) -> EvaluationProtocol:
    """How today's code evaluates."""
    return EvaluationProtocol(version=VERSION, seed=seed, episodes=episodes)
