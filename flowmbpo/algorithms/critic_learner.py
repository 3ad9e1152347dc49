"""How the critic learns: regression of the ensemble on TD(lambda) targets.

Not here: where the transitions come from (`imagination`, `experience`) and when in an epoch it learns (`pwm`).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from flowmbpo.algorithms.contract import Statistics
from flowmbpo.algorithms.imagination import Transitions
from flowmbpo.algorithms.normalizers import OrdinaryMoments
from flowmbpo.algorithms.optimization import GuardedAdam, autocast
from flowmbpo.algorithms.returns import td_lambda
from flowmbpo.models.averaging import update_average_
from flowmbpo.models.critic import Critic
from flowmbpo.spec.schema import CriticSpec, TrainSpec


class CriticLearner:
    """A critic with its optimiser, the ensemble `target` that bootstraps and the moments of all targets so far.

    `target` is the critic itself or, where `target_decay` is above 0, an average that follows it.
    """

    def __init__(self, critic: Critic, *, spec: CriticSpec, train: TrainSpec, generator: torch.Generator) -> None:
        self.critic, self.spec, self.train = critic, spec, train
        self.generator = generator
        self.target = copy.deepcopy(critic).requires_grad_(False) if spec.target_decay > 0.0 else critic
        self.optimizer = GuardedAdam(
            list(critic.parameters()),
            learning_rate=spec.learning_rate,
            betas=train.adam_betas,
            grad_norm=spec.grad_norm,
        )
        # One broken reward is in the targets of all steps before it: a whole row of an environment.
        self.moments = OrdinaryMoments(generator.device, share=0.1)

    @torch.no_grad()
    def targets(self, seen: Transitions) -> Tensor:
        """TD(lambda) targets `[T, B]` of all states seen, from the ensemble's minimum."""
        found = td_lambda(
            seen.rewards,
            seen.continues,
            self.target.min(seen.next_latents),
            gamma=self.train.gamma,
            td_lambda=self.train.td_lambda,
            ended=seen.ended,
        )
        self.moments.update(found)
        return found

    def center(self) -> None:
        """From now on an untrained head predicts the mean of all targets so far."""
        for critic in (self.critic, self.target):
            critic.offset.copy_(self.moments.mean)

    def fit(self, latents: Tensor, targets: Tensor) -> Statistics:
        """Mean squared error of every member, `passes` times over all latents `[T, B, Z]` in `minibatches` random
        parts; targets `[T, B]`. The average follows after every pass."""
        latents, targets = latents.detach().flatten(0, 1), targets.flatten()
        size = -(-len(targets) // self.spec.minibatches)
        losses, norms = [], []
        for _ in range(self.spec.passes):
            order = torch.randperm(len(targets), generator=self.generator, device=targets.device)
            for states, values in zip(latents[order].split(size), targets[order].split(size), strict=True):
                with autocast(self.train.precision, targets.device):
                    loss, gradients = self.critic.squared_error(states, values)
                norms.append(self.optimizer.descend(gradients, loss))
                losses.append(loss)
            if self.target is not self.critic:
                update_average_(self.target, self.critic, 1.0 - self.spec.target_decay)
        return {
            "train/value_loss": torch.stack(losses).mean() / self.critic.ensemble,
            "train/value_mean": targets.mean(),
            "train/critic_gradient_norm": torch.stack(norms).mean(),
        }
