"""What the world model and the actor's gradient are worth now, measured on episodes that nothing was trained on.

Reads a learner and changes nothing of it, its random numbers included. Not here: the measures themselves
(`models.diagnostics`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from flowmbpo.algorithms import gradient_truth
from flowmbpo.algorithms.held_out import HeldOut
from flowmbpo.algorithms.imagination import imagine, values_at_segment_ends
from flowmbpo.algorithms.optimization import frozen
from flowmbpo.algorithms.returns import segment_returns
from flowmbpo.models.diagnostics import (
    HORIZONS,
    distribution_scores,
    gradient_snr,
    open_loop_error,
    reward_fit,
    simplex_distance,
)

if TYPE_CHECKING:
    from flowmbpo.algorithms.pwm import PWM

SEQUENCES = 256
GRADIENTS = 8
"""Independent estimates behind the signal-to-noise ratio."""


def measure(learner: PWM, held_out: HeldOut) -> dict[str, Tensor]:
    """Metrics of the catalogue as detached 0-d tensors; without those of the model while no held-out episode is long
    enough, and without the gradient's before the model's first update.

    `held_out` holds real episodes of the policy under evaluation, none of which enters training.
    """
    metrics = {"model/velocity_evaluations": torch.tensor(float(dynamics_evaluations(learner)))}
    generator = torch.Generator(learner.device).manual_seed(0)
    batch = held_out.sample(SEQUENCES, max(HORIZONS), generator)
    if batch is None:
        return metrics
    obs = learner.observations(batch.obs)
    metrics |= _model_errors(learner, obs, batch.actions, batch.rewards)
    noise = torch.Generator(learner.device).manual_seed(1)
    scores = distribution_scores(learner.world_model, obs, batch.actions, noise)
    metrics |= {f"model/{name}": value for name, value in scores.items()}
    longer = held_out.sample(gradient_truth.STATES, max(gradient_truth.HORIZONS) + 1, generator)
    if learner.truth is not None and longer is not None:
        found = gradient_truth.measure_truth(
            learner.world_model,
            learner.truth,
            (learner.encode(longer.obs[0]), longer.obs[0]),
            longer.actions,
            reward_scale=learner.reward_scale.value,
            gamma=learner.train.gamma,
            generator=generator,
        )
        metrics |= {f"model/{name}": value for name, value in found.items()}
    if learner.model_is_trained:
        metrics["train/actor_gradient_snr"] = _actor_gradient_snr(learner, batch.obs[0], generator)
    return metrics


def dynamics_evaluations(learner: PWM) -> int:
    """Evaluations of the dynamics network per epoch, one per state: what flows with more substeps pay for."""
    train = learner.train
    steps = learner.actor_spec.updates * _rollouts_per_actor_update(learner) * train.horizon
    if learner.critic_spec.states == "predicted":
        steps += train.num_envs * (train.horizon - 1)
    imagining = steps * learner.world_model.dynamics.evaluations_per_step
    return round(imagining + learner.model_learner.dynamics_evaluations)


def _rollouts_per_actor_update(learner: PWM) -> int:
    visited = learner.train.imagination == "from_visited"
    return learner.actor_spec.imagined_batch_size if visited else learner.train.num_envs


@torch.no_grad()
def _model_errors(learner: PWM, obs: Tensor, actions: Tensor, rewards: Tensor) -> dict[str, Tensor]:
    model = learner.world_model
    errors = open_loop_error(model, obs, actions)
    metrics = {f"model/{name}": value for name, value in errors.items()}
    if model.simplex_group is not None:
        end = model.unroll(model.encode(obs[0]), actions)[-1]
        metrics["model/simplex_distance"] = simplex_distance(end, model.simplex_group).mean()
    predicted = model.reward(model.encode(obs[:-1]), actions) * learner.reward_scale.value
    return metrics | {f"model/{name}": value for name, value in reward_fit(predicted, rewards).items()}


def _actor_gradient_snr(learner: PWM, states: Tensor, generator: torch.Generator) -> Tensor:
    """Expected signal-to-noise ratio of one actor update's gradient.

    From `GRADIENTS` estimates of fewer rollouts each; the ratio grows with their number. states: `[S, O]`.
    """
    update = _rollouts_per_actor_update(learner)
    rollouts = max(1, update // GRADIENTS)
    actor, parameters = learner.actor, list(learner.actor.parameters())
    chosen = torch.randint(len(states), (GRADIENTS * rollouts,), generator=generator, device=states.device)
    with frozen(learner.world_model, learner.critic, actor):
        imagined = imagine(
            learner.world_model,
            actor,
            learner.encode(states[chosen]),
            horizon=learner.train.horizon,
            generator=generator,
            reacting=learner.reacting,
        )
        values = values_at_segment_ends(learner.critic, imagined)
        returns = segment_returns(imagined.rewards, imagined.continues, values, gamma=learner.train.gamma)
    exploration, gradients = imagined.exploration, []
    assert exploration is not None
    sensitivity = exploration.sensitivity(returns.mean(), limit=learner.actor_spec.rollout_grad_limit)
    for first in range(0, len(chosen), rollouts):
        value = exploration.weighed(sensitivity, actor, imagined.latents, slice(first, first + rollouts))
        gradient = torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True)
        gradients.append(torch.cat([part.flatten() for part in gradient]))
    return gradient_snr(torch.stack(gradients)) * (update / rollouts)
