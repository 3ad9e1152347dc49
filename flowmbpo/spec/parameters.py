"""How many trainable parameters each network of an experiment has, in closed form: no torch, no building.

The layers are those of TD-MPC2 and PWM: normed layer = Linear + LayerNorm (+ Mish); a test compares with real networks.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from flowmbpo.spec.extensions import WorldModelExtension
from flowmbpo.spec.schema import (
    EnsembleWorldModelSpec,
    Experiment,
    FlowWorldModelSpec,
    GaussianWorldModelSpec,
    SimulatorWorldModelSpec,
)

REWARD_BINS = 101


@dataclass(frozen=True)
class ParameterCounts:
    """Trainable parameters per part."""

    encoder: int
    dynamics: int
    reward: int
    continuation: int
    decoder: int
    actor: int
    critics: int

    @property
    def world_model(self) -> int:
        """Encoder, dynamics and reward: what the nominal size of a family is about."""
        return self.encoder + self.dynamics + self.reward

    @property
    def total(self) -> int:
        """Everything that is trained."""
        return sum(asdict(self).values())

    def as_dict(self) -> dict[str, int]:
        """Per part, with the sums `world_model` and `total`."""
        return {**asdict(self), "world_model": self.world_model, "total": self.total}


def linear(inputs: int, outputs: int) -> int:
    """Weights and biases of a linear layer."""
    return inputs * outputs + outputs


def normed(widths: Sequence[int]) -> int:
    """A chain of Linear + LayerNorm through these widths."""
    return sum(linear(a, b) + 2 * b for a, b in itertools.pairwise(widths))


def count_parameters(spec: Experiment) -> ParameterCounts:
    """Parameters of every network that the builder makes for this experiment."""
    model, env, latent = spec.world_model, spec.env, spec.latent_dim
    actor = normed([latent, *spec.actor.units]) + linear(spec.actor.units[-1], env.action_dim) + env.action_dim
    critic = normed([latent, *spec.critic.units]) + linear(spec.critic.units[-1], 1)
    critics = spec.critic.ensemble * critic
    if isinstance(model, SimulatorWorldModelSpec):
        return ParameterCounts(0, 0, 0, 0, 0, actor, critics)
    joint = latent + env.action_dim
    encoder = normed([env.observation_dim, *model.encoder_units, latent]) if model.encoder == "mlp" else 0
    dynamics = normed([joint, *model.units, latent])
    if isinstance(model, FlowWorldModelSpec):
        inputs = 2 if model.velocity == "shortcut" else 1  # tau, and the length of the step
        inputs += latent * (model.source == "noise")  # where the path is, beside where it began
        dynamics += inputs * model.units[0]
    linear_velocity = isinstance(model, FlowWorldModelSpec) and model.velocity == "linear"
    if model.encoder != "mlp" or linear_velocity or model.step == "logit_residual":
        dynamics -= 2 * latent  # the last layer has no LayerNorm: it ends on no simplex, or is a change of one
    if isinstance(model, GaussianWorldModelSpec):
        dynamics += linear(model.units[-1], latent)
    if isinstance(model, EnsembleWorldModelSpec):
        dynamics *= model.members
    if isinstance(model, WorldModelExtension):
        dynamics = model.dynamics_parameters(latent, env.action_dim)
    bins = REWARD_BINS if model.reward_head == "two_hot" else 1
    reward_units = model.reward_units or model.units
    reward = normed([joint, *reward_units]) + linear(reward_units[-1], bins)
    continuation = 0
    if model.continuation_units:
        continuation = normed([joint, *model.continuation_units]) + linear(model.continuation_units[-1], 1)
    decoder = 0
    if model.decoder_units:
        decoder = normed([latent, *model.decoder_units]) + linear(model.decoder_units[-1], env.observation_dim)
    return ParameterCounts(encoder, dynamics, reward, continuation, decoder, actor, critics)
