"""The networks of an experiment by the widths of their layers, and from these, in closed form, parameters and work.

The layers are those of TD-MPC2 and PWM: normed layer = Linear + LayerNorm (+ Mish); a test compares with real networks.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
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
_KEPT_PER_FEATURE = 3  # outputs of Linear, LayerNorm and activation, kept for the backward pass


@dataclass(frozen=True)
class Network:
    """A chain of Linear + LayerNorm through these widths; the last layer has no LayerNorm unless `on_simplex`."""

    widths: tuple[int, ...] = (0,)
    on_simplex: bool = False

    @property
    def parameters(self) -> int:
        """Weights and biases; a LayerNorm has two per feature."""
        layers = sum(a * b + 3 * b for a, b in itertools.pairwise(self.widths))
        plain = len(self.widths) > 1 and not self.on_simplex
        return layers - 2 * self.widths[-1] * plain

    @property
    def flop(self) -> int:
        """Floating-point operations of one row: a multiply-add counts 2."""
        return 2 * sum(a * b for a, b in itertools.pairwise(self.widths))

    @property
    def kept(self) -> int:
        """Features of one row that are kept for the backward pass."""
        return self.widths[0] + _KEPT_PER_FEATURE * sum(self.widths[1:])


def networks(spec: Experiment) -> Mapping[str, Network]:
    """Every network by its part, of an ensemble one member; one without widths is not there and costs nothing."""
    model, env, latent = spec.world_model, spec.env, spec.latent_dim
    policy = {
        "actor": Network((latent, *spec.actor.units, env.action_dim)),
        "critics": Network((latent, *spec.critic.units, 1)),
    }
    if isinstance(model, SimulatorWorldModelSpec):
        return dict.fromkeys(("encoder", "dynamics", "reward", "continuation", "decoder"), Network()) | policy
    joint, observation = latent + env.action_dim, env.observation_dim
    # The last layer ends on no simplex where z is an observation, and has no LayerNorm where it is a change of z.
    on_simplex = model.encoder == "mlp" and model.step == "absolute"
    inputs = joint
    if isinstance(model, FlowWorldModelSpec):
        on_simplex = on_simplex and model.velocity != "linear"
        inputs += 2 if model.velocity == "shortcut" else 1  # tau, and the length of the step
        inputs += latent * (model.source == "noise")  # where the path is, beside where it began
    bins = REWARD_BINS if model.reward_head == "two_hot" else 1
    ends, decodes = model.continuation_units, model.decoder_units
    return {
        "encoder": Network((observation, *model.encoder_units, latent) if model.encoder == "mlp" else (latent,), True),
        "dynamics": Network((inputs, *model.units, latent), on_simplex),
        "reward": Network((joint, *(model.reward_units or model.units), bins)),
        "continuation": Network((joint, *ends, 1)) if ends else Network(),
        "decoder": Network((latent, *decodes, observation)) if decodes else Network(),
        **policy,
    }


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
        return sum(asdict(self).values())

    def as_dict(self) -> dict[str, int]:
        """Per part, with the sums `world_model` and `total`."""
        return {**asdict(self), "world_model": self.world_model, "total": self.total}


def count_parameters(spec: Experiment) -> ParameterCounts:
    """Parameters of every network that the builder makes for this experiment."""
    model, action = spec.world_model, spec.env.action_dim
    counts = {part: network.parameters for part, network in networks(spec).items()}
    counts["actor"] += action  # log sigma
    counts["critics"] *= spec.critic.ensemble
    if isinstance(model, GaussianWorldModelSpec):
        counts["dynamics"] += (model.units[-1] + 1) * spec.latent_dim  # the head of sigma
    elif isinstance(model, EnsembleWorldModelSpec):
        counts["dynamics"] *= model.members
    elif isinstance(model, WorldModelExtension):
        counts["dynamics"] = model.dynamics_parameters(spec.latent_dim, action)
    return ParameterCounts(**counts)
