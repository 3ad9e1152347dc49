"""Turns a resolved experiment into environments, networks and an algorithm: the only reader of a whole experiment."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from flowmbpo.algorithms.held_out import HeldOut
from flowmbpo.algorithms.normalizers import ObservationNormalizer, Scale
from flowmbpo.algorithms.pwm import PWM
from flowmbpo.algorithms.starts import Starts
from flowmbpo.envs import ant_reflection, make_env
from flowmbpo.envs.contract import Env
from flowmbpo.models.actor import Actor
from flowmbpo.models.critic import Critic
from flowmbpo.models.distributions import EnsembleDynamics, GaussianDynamics
from flowmbpo.models.dynamics import Dynamics, MLPDynamics
from flowmbpo.models.flow import FlowDynamics
from flowmbpo.models.heads import Continuation, ScalarReward, TwoHotReward
from flowmbpo.models.noise_flow import NoiseFlowDynamics
from flowmbpo.models.reflection import Reflection
from flowmbpo.models.shortcut import ShortcutDynamics
from flowmbpo.models.world_model import Decoder, Encoder, WorldModel
from flowmbpo.spec import extensions
from flowmbpo.spec.model_rules import DISTURBANCES
from flowmbpo.spec.schema import (
    ActorSpec,
    AntEnvSpec,
    EnvSpec,
    Experiment,
    FlowWorldModelSpec,
    GaussianWorldModelSpec,
    LearnedWorldModelSpec,
    SimulatorWorldModelSpec,
    WorldModelSpec,
)
from flowmbpo.training.devices import reuse_freed_memory
from flowmbpo.training.episodes import EpisodeRecorder
from flowmbpo.training.evaluator import Evaluator
from flowmbpo.training.recorded import read_recorded
from flowmbpo.training.seeding import Seeds

MEASURED_STEPS, MEASURED_EPISODES = 1000, 128
"""Of an evaluation, at most, that the world model is measured on: 24 MB of the Ant."""

OBSERVATION_LIMIT = 8.0
"""Deviations from the mean beyond which a normalised observation is cut; never for the simulator, which needs it."""


@dataclass(frozen=True)
class Built:
    """Everything that trains one experiment with one seed."""

    env: EpisodeRecorder
    algorithm: PWM | Starts
    evaluator: Evaluator
    held_out: HeldOut
    """Where evaluation episodes are kept, for measuring the world model on what it was not trained on."""


def build(experiment: Experiment, seed: int, device: str, *, pretrained: bool = False) -> Built:
    """Environment, algorithm and evaluator; the same `seed` gives the same bits. `pretrained`: it goes on where
    `train.pretrain` is done, whose transitions are then not read."""
    reuse_freed_memory()
    seeds = Seeds(seed)
    torch.manual_seed(seeds.networks)  # initial weights are the only numbers from the global generator
    env = EpisodeRecorder(build_env(experiment.env, experiment.train.num_envs, seeds.environment, device))
    train = experiment.train
    one = experiment.model_copy(update={"train": train.model_copy(update={"max_epochs": train.learner_epochs})})
    learners = [
        build_algorithm(one, env, torch.Generator(device).manual_seed(seeds.algorithm + index), pretrained=pretrained)
        for index in range(train.starts)
    ]
    algorithm = learners[0] if len(learners) == 1 else Starts(learners, train.start_epochs)
    evaluation = experiment.evaluation
    evaluator = build_evaluator(experiment, evaluation.episodes, evaluation.seed, device)
    return Built(env, algorithm, evaluator, build_held_out(env, evaluation.episodes))


def build_held_out(env: Env, episodes: int) -> HeldOut:
    """Where what an evaluation of so many episodes meets is kept, or the first of it."""
    steps = min(env.episode_length, MEASURED_STEPS)
    return HeldOut.of(env, steps=steps, episodes=min(episodes, MEASURED_EPISODES))


def build_algorithm(
    experiment: Experiment, env: EpisodeRecorder, generator: torch.Generator, *, pretrained: bool = False
) -> PWM:
    """The learner on `env`, its networks on the environment's device with weights from Torch's global generator."""
    train = experiment.train
    recorded = None
    if train.pretrain and not pretrained:
        length, device = train.sequence_length, env.device.type
        recorded = read_recorded(train.pretrain, experiment.env, length=length, device=device)
    observations, reward_scale = build_normalizers(experiment, env.device)
    return PWM(
        env=env,
        world_model=build_world_model(experiment, observations, reward_scale).to(env.device),
        actor=build_actor(experiment, env.action_dim).to(env.device),
        critic=build_critic(experiment).to(env.device),
        observations=observations,
        reward_scale=reward_scale,
        truth=build_truth(experiment.env, env.device),
        train=train,
        actor_spec=experiment.actor,
        critic_spec=experiment.critic,
        generator=generator,
        recorded=recorded,
    )


def build_normalizers(experiment: Experiment, device: torch.device) -> tuple[ObservationNormalizer, Scale]:
    """Of observations and of rewards, before anything was seen."""
    train = experiment.train
    limit = math.inf if isinstance(experiment.world_model, SimulatorWorldModelSpec) else OBSERVATION_LIMIT
    enabled, size = train.normalize_observations, experiment.env.observation_dim
    reflection = build_reflection(experiment.actor, device)
    observations = ObservationNormalizer(size, device, enabled=enabled, limit=limit, reflection=reflection)
    return observations, Scale(train.reward_scaling, device)


def build_env(spec: EnvSpec, num_envs: int, seed: int, device: str) -> Env:
    """`num_envs` environments of this kind."""
    return make_env(num_envs=num_envs, seed=seed, device=device, **spec.model_dump())


def build_evaluator(experiment: Experiment, episodes: int, seed: int, device: str) -> Evaluator:
    """The evaluator of an experiment: as many environments as episodes."""
    return Evaluator(build_env(experiment.env, episodes, seed, device), seed)


def build_world_model(experiment: Experiment, observations: ObservationNormalizer, reward_scale: Scale) -> WorldModel:
    """What the policy learns from: networks, or the simulator, which needs the learner's normalisers."""
    spec, env = experiment.world_model, experiment.env
    if not isinstance(spec, SimulatorWorldModelSpec):
        return build_networks(spec, env.observation_dim, env.action_dim)
    from flowmbpo.envs.ant_gradients import prepare  # loads Warp
    from flowmbpo.training.simulator import Simulator

    assert isinstance(env, AntEnvSpec)  # a rule of the registry
    prepare("observation", observations.moments.mean.device)  # compiling is no part of training
    return Simulator(
        observations=observations,
        reward_scale=reward_scale,
        mass_matrix_interval=env.mass_matrix_interval,
        early_termination=env.early_termination,
    )


def build_truth(env: EnvSpec, device: torch.device) -> WorldModel | None:
    """The simulator on raw observations, where they are the whole state of an Ant; it compiles at its first use."""
    if not isinstance(env, AntEnvSpec) or any(getattr(env, key) for key in DISTURBANCES):
        return None
    from flowmbpo.training.simulator import Simulator

    return Simulator(
        observations=ObservationNormalizer(env.observation_dim, device, enabled=False, limit=math.inf),
        reward_scale=Scale("none", device),
        mass_matrix_interval=env.mass_matrix_interval,
        early_termination=env.early_termination,
    )


def build_networks(spec: LearnedWorldModelSpec, obs_dim: int, action_dim: int) -> WorldModel:
    """Encoder, dynamics, reward head and, where asked for, the continuation head."""
    learned = spec.encoder == "mlp"
    sizes: dict[str, Any] = {
        "latent_dim": spec.latent_dim,
        "action_dim": action_dim,
        "activation": spec.activation,
        "standardize": standardized_groups(spec),
    }
    encoder: nn.Module = nn.Identity()
    if learned:
        encoder = Encoder(
            obs_dim=obs_dim,
            units=spec.encoder_units,
            latent_dim=spec.latent_dim,
            simnorm_dim=spec.simnorm_dim,
            activation=spec.activation,
        )
    dynamics = build_dynamics(spec, action_dim)
    reward_head = ScalarReward if spec.reward_head == "scalar" else TwoHotReward
    continuation = Continuation(**sizes, units=spec.continuation_units) if spec.continuation_units else None
    return WorldModel(
        encoder=encoder,
        dynamics=dynamics,
        reward_head=reward_head(**sizes, units=spec.reward_units or spec.units),
        continuation_head=continuation,
        decoder=build_decoder(spec, obs_dim) if spec.decoder_units else None,
        teacher_forced=spec.loss_states == "encoded",
    )


def build_dynamics(spec: LearnedWorldModelSpec, action_dim: int) -> Dynamics:
    """One control step in latent space, of the kind that is asked for."""
    learned = spec.encoder == "mlp"
    sizes: dict[str, Any] = {
        "latent_dim": spec.latent_dim,
        "action_dim": action_dim,
        "units": spec.units,
        "activation": spec.activation,
    }
    if isinstance(spec, GaussianWorldModelSpec):
        return GaussianDynamics(**sizes)
    sizes |= {"simnorm_dim": spec.simnorm_dim if learned else None, "standardize": standardized_groups(spec)}
    residual = spec.step == "logit_residual"
    if not isinstance(spec, FlowWorldModelSpec):
        sizes["residual"] = residual or not learned  # an observation's step is always a change
        if isinstance(spec, extensions.WorldModelExtension):
            dynamics: Dynamics = extensions.load(type(spec), spec.dynamics)(**sizes, **spec.own_fields())
            return dynamics
        return EnsembleDynamics(**sizes, members=spec.members) if spec.kind == "ensemble" else MLPDynamics(**sizes)
    sizes |= {"integrator": spec.integrator, "substeps": spec.substeps, "tau_sampling": spec.tau_sampling}
    shortcut = spec.velocity == "shortcut"
    if spec.source == "noise":
        return NoiseFlowDynamics(**sizes, residual=residual or not learned, shortcut=shortcut)
    if shortcut:
        return ShortcutDynamics(**sizes, residual=residual)
    return FlowDynamics(**sizes, residual=residual, velocity=spec.velocity, objective=spec.objective)


def build_decoder(spec: LearnedWorldModelSpec, obs_dim: int) -> Decoder:
    """The head that reconstructs an observation from a latent."""
    return Decoder(
        latent_dim=spec.latent_dim,
        units=spec.decoder_units,
        obs_dim=obs_dim,
        activation=spec.activation,
        standardize=standardized_groups(spec),
    )


def standardized_groups(spec: WorldModelSpec) -> int | None:
    """Features per group of latents that networks see standardised; None where they see them as they are."""
    if isinstance(spec, SimulatorWorldModelSpec) or spec.latent_input != "standardized":
        return None
    return spec.simnorm_dim


def build_actor(experiment: Experiment, action_dim: int) -> Actor:
    """The policy on latents of the experiment's world model."""
    spec = experiment.actor
    return Actor(
        latent_dim=experiment.latent_dim,
        action_dim=action_dim,
        units=spec.units,
        activation=spec.activation,
        log_std_init=spec.log_std_init,
        log_std_min=spec.log_std_min,
        standardize=standardized_groups(experiment.world_model),
        reflection=build_reflection(spec, torch.device("cpu")),
    )


def build_reflection(spec: ActorSpec, device: torch.device) -> Reflection | None:
    """The Ant in the mirror, for a policy that is to be symmetric; the registry's rules refuse it to any other body."""
    if not spec.symmetric:
        return None
    return Reflection(ant_reflection.OBSERVATION, ant_reflection.ACTION).to(device)


def build_critic(experiment: Experiment) -> Critic:
    """The ensemble of values on latents of the experiment's world model."""
    spec = experiment.critic
    return Critic(
        latent_dim=experiment.latent_dim,
        units=spec.units,
        activation=spec.activation,
        ensemble=spec.ensemble,
        standardize=standardized_groups(experiment.world_model),
    )
