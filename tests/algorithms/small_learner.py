"""A learner small enough for tests: tiny networks on the point mass, every choice open to change."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flowmbpo.algorithms.contract import Algorithm
from flowmbpo.algorithms.normalizers import ObservationNormalizer, Scale
from flowmbpo.algorithms.pwm import PWM
from flowmbpo.envs.contract import Env
from flowmbpo.envs.pointmass import PointMassEnv
from flowmbpo.models.actor import Actor
from flowmbpo.models.critic import Critic
from flowmbpo.models.dynamics import MLPDynamics
from flowmbpo.models.heads import Continuation, ScalarReward
from flowmbpo.models.world_model import Encoder, WorldModel
from flowmbpo.spec.schema import ActorSpec, CriticSpec, TrainSpec

PUBLISHED = {"imagination": "alongside", "normalize_observations": False, "reward_scaling": "running_std"}
GROUNDED = {"imagination": "from_visited", "normalize_observations": True, "reward_scaling": "none"}


def world_model(
    obs_dim: int,
    action_dim: int,
    *,
    latent_dim: int | None = None,
    continuation: bool = True,
    units: Sequence[int] = (32,),
) -> WorldModel:
    """With `latent_dim` a learned SimNorm latent, else the observation itself with residual dynamics."""
    latent = latent_dim or obs_dim
    sizes: dict[str, Any] = {"latent_dim": latent, "action_dim": action_dim, "units": units, "activation": "silu"}
    return WorldModel(
        encoder=Encoder(obs_dim=obs_dim, units=units, latent_dim=latent, simnorm_dim=8, activation="silu")
        if latent_dim
        else nn.Identity(),
        dynamics=MLPDynamics(simnorm_dim=8 if latent_dim else None, residual=not latent_dim, **sizes),
        reward_head=ScalarReward(**sizes),
        continuation_head=Continuation(**sizes) if continuation else None,
    )


def learner(
    *,
    seed: int = 0,
    env: Env | None = None,
    latent_dim: int | None = None,
    train: dict[str, Any] | None = None,
    actor: dict[str, Any] | None = None,
    critic: dict[str, Any] | None = None,
) -> PWM:
    """A PWM on `env` (default: 16 point masses); `train`, `actor` and `critic` override keys of their sections."""
    torch.manual_seed(seed)
    env = env or PointMassEnv(num_envs=16, seed=seed, episode_length=20)
    latent = latent_dim or env.obs_dim
    train_spec = TrainSpec.model_validate(
        {
            "horizon": 16,
            "max_epochs": 50,
            "num_envs": env.num_envs,
            "wm_batch_size": 32,
            "wm_updates": 2,
            "wm_first_updates": 3,
            "wm_sequence_length": 4,
            "replay_capacity": 1_000,
        }
        | (train or {})
    )
    actor_spec = ActorSpec.model_validate(
        {"units": (32,), "imagined_batch_size": 32, "recent_steps": 64} | (actor or {})
    )
    critic_spec = CriticSpec.model_validate({"units": (32,), "passes": 1, "minibatches": 2} | (critic or {}))
    return PWM(
        env=env,
        world_model=world_model(env.obs_dim, env.action_dim, latent_dim=latent_dim),
        actor=Actor(
            latent_dim=latent,
            action_dim=env.action_dim,
            units=actor_spec.units,
            activation="silu",
            log_std_init=actor_spec.log_std_init,
            log_std_min=actor_spec.log_std_min,
        ),
        critic=Critic(latent_dim=latent, units=critic_spec.units, activation="silu", ensemble=critic_spec.ensemble),
        train=train_spec,
        actor_spec=actor_spec,
        critic_spec=critic_spec,
        observations=ObservationNormalizer(
            env.obs_dim, env.device, enabled=train_spec.normalize_observations, limit=8.0
        ),
        reward_scale=Scale(train_spec.reward_scaling, env.device),
        truth=None,
        generator=torch.Generator().manual_seed(seed),
    )


def run_epochs(algorithm: Algorithm, first: int, last: int) -> dict[str, Tensor]:
    """Epochs `first` to `last` (exclusive) as the training loop runs them; the statistics of the last one."""
    statistics: dict[str, Tensor] = {}
    for epoch in range(first, last):
        algorithm.begin_epoch(epoch)
        statistics = {}
        for _, phase in algorithm.phases:
            statistics |= phase()
    return statistics
