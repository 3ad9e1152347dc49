"""What a deployable checkpoint holds, as objects again: its experiment, its policy, or a learner to measure with."""

from __future__ import annotations

import torch

from flowmbpo.algorithms.learner_state import load_deployable_state
from flowmbpo.algorithms.policy import DeterministicPolicy
from flowmbpo.algorithms.pwm import PWM
from flowmbpo.runs.checkpoint import Checkpoint
from flowmbpo.runs.files import BrokenFile
from flowmbpo.spec.schema import Experiment
from flowmbpo.training import builder

_MISFITS = (KeyError, TypeError, AttributeError, ValueError, RuntimeError)  # of weights and networks


def experiment_of(found: Checkpoint) -> Experiment:
    """The experiment that a checkpoint was trained as. Raises BrokenFile when it is not a valid one."""
    from pydantic import ValidationError

    try:
        stored = found.manifest["experiment"]
        # Version 0.1.0 knew no centring, now the default; its other missing keys have defaults that change nothing.
        return Experiment.model_validate({**stored, "train": {"regression": "raw", **stored["train"]}})
    except (KeyError, TypeError, ValidationError) as error:
        raise BrokenFile(f"{found.path}: its experiment is not valid for this version ({error})") from error


def load_policy(found: Checkpoint, device: str) -> DeterministicPolicy:
    """The deterministic policy of a deployable checkpoint: its networks and nothing else.

    Raises BrokenFile when networks and weights do not fit.
    """
    experiment = experiment_of(found)
    state = found.load(device)
    observations, reward_scale = builder.build_normalizers(experiment, torch.device(device))
    try:
        world_model = builder.build_world_model(experiment, observations, reward_scale).to(device)
        actor = builder.build_actor(experiment, experiment.env.action_dim).to(device)
        world_model.load_state_dict(state["world_model"])
        actor.load_state_dict(state["actor"])
        observations.load_state_dict(state["observations"])
        reward_scale.load_state_dict(state["reward_scale"])
    except _MISFITS as error:
        raise BrokenFile(f"{found.path}: its weights do not fit its networks ({error})") from error
    if experiment.train.regression == "centered":
        world_model.reward_offset.copy_(reward_scale.center)
    return DeterministicPolicy(
        world_model=world_model,
        actor=actor,
        observations=observations,
        reward_scale=reward_scale,
        train=experiment.train,
    )


def load_learner(found: Checkpoint, device: str) -> PWM:
    """Everything that a deployable checkpoint knows, to act and to be measured with. Raises BrokenFile as above."""
    experiment = experiment_of(found)
    # One environment and the smallest replay: the algorithm is built to act, not to learn.
    horizon = experiment.train.sequence_length
    small = experiment.train.model_copy(
        update={"num_envs": 1, "replay_capacity": 2 * (horizon + 1), "pretrain": None, "starts": 1}
    )
    algorithm = builder.build(
        experiment.model_copy(
            update={"train": small, "evaluation": experiment.evaluation.model_copy(update={"episodes": 1})}
        ),
        0,
        device,
    ).algorithm
    assert isinstance(algorithm, PWM)
    try:
        load_deployable_state(algorithm, found.load(device))
    except _MISFITS as error:
        raise BrokenFile(f"{found.path}: its weights do not fit its networks ({error})") from error
    return algorithm
