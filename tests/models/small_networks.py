"""Small networks and random latents for the tests of this room."""

from __future__ import annotations

from typing import Any

import torch

from flowmbpo.models.dynamics import Dynamics, MLPDynamics
from flowmbpo.models.flow import FlowDynamics
from flowmbpo.models.heads import Continuation, ScalarReward
from flowmbpo.models.shortcut import ShortcutDynamics
from flowmbpo.models.world_model import Decoder, Encoder, WorldModel

SMALL: dict[str, Any] = {"latent_dim": 32, "action_dim": 3, "units": (48, 48), "activation": "mish"}


def flow(
    velocity: str,
    *,
    integrator: str = "heun",
    substeps: int = 2,
    tau_sampling: str = "uniform",
    simnorm_dim: int | None = 8,
    residual: bool = False,
    objective: str = "matching",
) -> FlowDynamics:
    """A small flow."""
    return FlowDynamics(
        **SMALL,
        simnorm_dim=simnorm_dim,
        integrator=integrator,
        substeps=substeps,
        tau_sampling=tau_sampling,
        velocity=velocity,
        residual=residual,
        objective=objective,
    )


def shortcut(*, integrator: str = "euler", substeps: int = 1, residual: bool = False) -> ShortcutDynamics:
    """A small shortcut flow."""
    return ShortcutDynamics(
        **SMALL,
        simnorm_dim=8,
        integrator=integrator,
        substeps=substeps,
        tau_sampling="uniform",
        residual=residual,
    )


def mlp(*, residual: bool = False) -> MLPDynamics:
    """A small MLP dynamics."""
    return MLPDynamics(**SMALL, simnorm_dim=8, residual=residual)


def every_dynamics() -> list[Dynamics]:
    """One of each kind."""
    return [
        mlp(),
        flow("linear"),
        flow("endpoint"),
        flow("endpoint", integrator="euler", tau_sampling="midpoint"),
        shortcut(),
        mlp(residual=True),
        flow("endpoint", residual=True, objective="both"),
        flow("linear", objective="prediction"),
    ]


def small_world_model(dynamics: Dynamics, *, continuation: bool = False, decoder: bool = False) -> WorldModel:
    """Observation 5, action 3, latent 32."""
    return WorldModel(
        encoder=Encoder(obs_dim=5, units=(24,), latent_dim=32, simnorm_dim=8, activation="mish"),
        dynamics=dynamics,
        reward_head=ScalarReward(**SMALL),
        continuation_head=Continuation(**SMALL) if continuation else None,
        decoder=Decoder(latent_dim=32, units=(16,), obs_dim=5, activation="mish") if decoder else None,
    )


def on_simplex(*shape: int) -> torch.Tensor:
    """Random latents on the product of simplices."""
    return (3 * torch.randn(*shape)).unflatten(-1, (-1, 8)).softmax(-1).flatten(-2)
