"""Evaluation: the real environment, fixed seeds, the deterministic policy, full episodes. One function for all callers.

The world model's own prediction of the same episodes is reported beside the result and never instead of it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from flowmbpo.algorithms.contract import Policy
from flowmbpo.algorithms.held_out import HeldOut
from flowmbpo.envs.contract import Env
from flowmbpo.tracking.evaluations import EvaluationProtocol

VERSION = 1  # raised whenever the numbers of an evaluation could change; older results are then out of date
_SYNC_EVERY = 25  # control steps between looks at whether every episode has ended


@dataclass(frozen=True)
class Evaluation:
    """Result over full episodes; rewards are undiscounted sums, lengths are control steps, speed is m/s along +x."""

    version: int
    seed: int
    episodes: int
    mean_reward: float
    std_reward: float
    median_reward: float
    q05_reward: float
    q25_reward: float
    q75_reward: float
    q95_reward: float
    min_reward: float
    max_reward: float
    mean_length: float
    fall_share: float
    forward_speed: float | None
    model_predicted_reward: float

    def metrics(self) -> dict[str, float]:
        """The figures by their names in the metrics catalogue."""
        figures = {key: value for key, value in asdict(self).items() if key not in ("version", "seed", "episodes")}
        return {f"eval/{key}": float(value) for key, value in figures.items() if value is not None}


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
        quantiles = torch.quantile(reward, torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], device=reward.device)).tolist()
        return Evaluation(
            version=VERSION,
            seed=self.seed,
            episodes=env.num_envs,
            mean_reward=reward.mean().item(),
            std_reward=reward.std(correction=0).item(),
            median_reward=quantiles[2],
            q05_reward=quantiles[0],
            q25_reward=quantiles[1],
            q75_reward=quantiles[3],
            q95_reward=quantiles[4],
            min_reward=reward.min().item(),
            max_reward=reward.max().item(),
            mean_length=length.mean().item(),
            fall_share=fell.mean().item(),
            forward_speed=(speed.sum() / length.sum()).item() if env.forward_velocity_index is not None else None,
            model_predicted_reward=predicted.mean().item(),
        )


def protocol(seed: int, episodes: int) -> EvaluationProtocol:
    """How today's code evaluates."""
    return EvaluationProtocol(version=VERSION, seed=seed, episodes=episodes)
