"""Records what a policy does in the real environment: one episode to look at, or many to learn from.

Draws nothing and writes nothing: pictures and files are made from the recordings.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flowmbpo.algorithms.contract import Policy
from flowmbpo.algorithms.held_out import HeldOut
from flowmbpo.envs.contract import Env
from flowmbpo.envs.scenes import Scene, scene_of
from flowmbpo.runs import checkpoint
from flowmbpo.runs.episode import Episode, Outcome
from flowmbpo.spec.identity import run_name
from flowmbpo.training import builder, loading
from flowmbpo.training.evaluator import Evaluation, Evaluator


def episode_of_checkpoint(folder: Path, device: str, seed: int | None = None, steps: int | None = None) -> Episode:
    """One episode of the checkpoint in `folder`, cut after `steps`. The default seed is that of the evaluation, so that
    the episode is the first of those that the evaluated R is the mean of.

    Raises BrokenFile when `folder` is not an intact checkpoint.
    """
    found = checkpoint.verify(folder, "checkpoint")
    experiment = loading.experiment_of(found)
    seed = experiment.evaluation.seed if seed is None else seed
    env = builder.build_env(experiment.env, 1, seed, device)
    return rollout(
        loading.load_policy(found, device),
        env,
        scene_of(experiment.env.kind, env),
        steps=steps or env.episode_length,
        title=run_name(experiment.name, int(found.manifest["seed"])),
        details=(("checkpoint", f"epoch {found.epoch:,}"), ("start", f"seed {seed}")),
    )


@torch.no_grad()
def rollout(
    policy: Policy,
    env: Env,
    scene: Scene,
    *,
    steps: int,
    title: str,
    details: tuple[tuple[str, str], ...] = (),
) -> Episode:
    """At most `steps` control steps of the first environment of `env`, until its episode ends.

    The reward of a step scores the state held before it, which is the one that is recorded with it.
    """
    obs = env.reset()
    policy.begin(env.num_envs)
    poses: list[np.ndarray] = []
    reward: list[float] = []
    speed: list[float] = []
    outcome: Outcome = "recording ended"
    while len(poses) < steps and outcome == "recording ended":
        poses.append(scene.poses(env, obs)[0])
        speed.append(float("nan") if env.forward_velocity_index is None else obs[0, env.forward_velocity_index].item())
        step = env.step(policy.act(obs)[0])
        reward.append(step.reward[0].item())
        outcome = "terminated" if step.terminated[0] else "time limit" if step.truncated[0] else outcome
        obs = step.obs
    return Episode(
        title=title,
        dt=scene.dt,
        capsule_link=np.array([capsule.link for capsule in scene.capsules]),
        capsule_ends=np.array([[capsule.start, capsule.end] for capsule in scene.capsules], dtype=np.float32),
        capsule_radius=np.array([capsule.radius for capsule in scene.capsules], dtype=np.float32),
        capsule_part=tuple(capsule.part for capsule in scene.capsules),
        poses=np.array(poses, dtype=np.float32),
        reward=np.array(reward, dtype=np.float32),
        speed=np.array(speed, dtype=np.float32),
        outcome=outcome,
        details=(*details, ("episode", f"{_ENDS[outcome]} {len(poses):,} steps")),
    )


_ENDS: dict[Outcome, str] = {
    "terminated": "terminated after",
    "time limit": "complete,",
    "recording ended": "its first",
}


class NoisyPolicy:
    """A policy whose actions get Gaussian noise, of another size in each environment, and are clipped to [-1, 1]."""

    def __init__(self, policy: Policy, noise: Tensor, generator: torch.Generator) -> None:
        """noise: `[B]`, standard deviations; an environment with 0 follows the policy itself."""
        self.policy, self.noise, self.generator = policy, noise.unsqueeze(-1), generator

    def begin(self, num_envs: int) -> None:
        self.policy.begin(num_envs)

    def act(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """See `Policy.act`."""
        actions, predicted = self.policy.act(obs)
        drawn = torch.randn(actions.shape, generator=self.generator, device=actions.device)
        return (actions + self.noise * drawn).clamp(-1.0, 1.0), predicted


def record_episodes(
    found: checkpoint.Checkpoint, *, episodes: int, noise: Sequence[float], seed: int, device: str
) -> tuple[HeldOut, Evaluation]:
    """`episodes` full episodes of a checkpoint's deterministic policy plus noise, and what they earned.

    Each episode keeps one standard deviation of `noise`, in turn. Raises BrokenFile for a checkpoint that is not whole.
    """
    experiment = loading.experiment_of(found)
    env = builder.build_env(experiment.env, episodes, seed, device)
    kept = HeldOut.of(env, steps=env.episode_length, episodes=episodes)
    sizes = torch.tensor(noise, device=device)[torch.arange(episodes, device=device) % len(noise)]
    policy = NoisyPolicy(loading.load_policy(found, device), sizes, torch.Generator(device).manual_seed(seed))
    return kept, Evaluator(env, seed)(policy, kept)
