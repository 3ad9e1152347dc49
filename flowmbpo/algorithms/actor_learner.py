"""How the policy learns: it ascends the returns of rollouts in the world model, and its average acts in evaluations.

Not here: the rollouts (`imagination`) and when in an epoch it learns (`pwm`).
"""

from __future__ import annotations

import copy

import torch

from flowmbpo.algorithms.contract import Statistics
from flowmbpo.algorithms.imagination import Transitions, values_at_segment_ends
from flowmbpo.algorithms.normalizers import Scale
from flowmbpo.algorithms.optimization import GuardedAdam, autocast, frozen
from flowmbpo.algorithms.returns import segment_returns
from flowmbpo.models.actor import Actor
from flowmbpo.models.averaging import update_average_
from flowmbpo.models.critic import Critic
from flowmbpo.models.world_model import WorldModel
from flowmbpo.spec.schema import ActorSpec, TrainSpec


class ActorLearner:
    """An actor with its optimiser, its average and the scale of the returns."""

    def __init__(self, actor: Actor, *, spec: ActorSpec, train: TrainSpec, device: torch.device) -> None:
        self.actor, self.spec, self.train = actor, spec, train
        self.average = copy.deepcopy(actor).requires_grad_(False)
        self.optimizer = GuardedAdam(
            list(actor.parameters()), learning_rate=spec.learning_rate, betas=train.adam_betas, grad_norm=spec.grad_norm
        )
        self.return_scale = Scale("running_std", device)

    def improve(self, imagined: Transitions, world_model: WorldModel, critic: Critic) -> Statistics:
        """One step up the returns of `imagined`, whose graph is used up."""
        with frozen(world_model, critic), autocast(self.train.precision, imagined.rewards.device):
            returns = segment_returns(
                imagined.rewards,
                imagined.continues,
                values_at_segment_ends(critic, imagined),
                gamma=self.train.gamma,
                ended=imagined.ended,
            )
        self.return_scale.update(returns)
        loss = -self.return_scale(returns).mean()
        assert imagined.exploration is not None
        with autocast(self.train.precision, imagined.rewards.device):
            through_policy = imagined.exploration.through_policy(
                loss, self.actor, imagined.latents, limit=self.spec.rollout_grad_limit
            )
        norm = self.optimizer.step(through_policy)
        return {
            "train/actor_loss": loss.detach(),
            "train/actor_gradient_norm": norm,
            "train/return_scale": self.return_scale.value,
        }

    def update_average(self) -> None:
        """The average follows the actor by one epoch."""
        update_average_(self.average, self.actor, 1.0 - self.spec.average_decay)
