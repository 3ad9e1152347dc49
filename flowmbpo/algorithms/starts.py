"""Several starts of one run, of which the best goes on. Not here: how a learner learns (`pwm`).

What a policy becomes can be decided early by chance: of Ants that start from different weights most find one gait, some
another, which they keep (docs/log.md). Trying a few for a short time costs less than training a bad one to its end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from flowmbpo.algorithms.contract import Statistics
from flowmbpo.algorithms.held_out import HeldOut
from flowmbpo.algorithms.policy import DeterministicPolicy
from flowmbpo.algorithms.pwm import PWM
from flowmbpo.data_types import State


class Starts:
    """Learners that train one after the other for `start_epochs` epochs each, all from the beginning of their schedule.

    Then the one that earned most per step in its last epoch goes on from where it was. All of them use the same
    environments, one at a time.
    """

    def __init__(self, learners: Sequence[PWM], start_epochs: int) -> None:
        self.learners, self.start_epochs = learners, start_epochs
        self.env_steps_per_epoch = learners[0].env_steps_per_epoch
        self._earned = torch.zeros((), device=learners[0].device)  # reward per step of the current epoch
        self._scores: list[float] = []  # what each learner that had its turn earned in its last epoch
        learners[0].collector.restart()  # the others have reset the environments

    @property
    def current(self) -> PWM:
        """The learner whose turn it is."""
        tried = len(self._scores)
        return self.learners[tried if tried < len(self.learners) else self._best]

    @property
    def _best(self) -> int:
        worth = [score if math.isfinite(score) else -math.inf for score in self._scores]
        return worth.index(max(worth))

    def begin_epoch(self, epoch: int) -> str:
        """As `Algorithm.begin_epoch`; now and then another learner takes its turn."""
        news, count = "", len(self.learners)
        if len(self._scores) < count and epoch == (len(self._scores) + 1) * self.start_epochs:
            before = self.current
            self._scores.append(self._earned.item())
            news = f"start {len(self._scores)} of {count} earned {self._scores[-1]:.2f} a step"
            if len(self._scores) == count:
                news += f"; start {self._best + 1} goes on"
            if self.current is not before:
                self.current.collector.restart()
        self.current.begin_epoch(epoch - min(len(self._scores), count - 1) * self.start_epochs)
        return news

    @property
    def phases(self) -> Sequence[tuple[str, Callable[[], Statistics]]]:
        """Those of the current learner."""
        return [(name, self._rollout if name == "rollout" else phase) for name, phase in self.current.phases]

    def _rollout(self) -> Statistics:
        statistics = self.current.rollout()
        self._earned = self.current.collector.experience.rewards.mean()
        return statistics

    @property
    def unfinished(self) -> str:
        return self.current.unfinished

    def interrupt_with(self, tick: Callable[[int, int], bool]) -> None:
        for learner in self.learners:
            learner.interrupt_with(tick)

    @property
    def nonfinite(self) -> Mapping[str, Tensor]:
        """Of all learners."""
        counted = [learner.nonfinite for learner in self.learners]
        return {name: torch.stack([each[name] for each in counted]).sum() for name in counted[0]}

    def counters(self) -> dict[str, float]:
        """Those of the current learner, and which start it is."""
        return {**self.current.counters(), "train/start": self.learners.index(self.current) + 1.0}

    def policy(self) -> DeterministicPolicy:
        return self.current.policy()

    def diagnose(self, held_out: HeldOut) -> Statistics:
        return self.current.diagnose(held_out)

    def deployable_state(self) -> State:
        return self.current.deployable_state()

    def state_dict(self) -> State:
        """Of the learners only those that may still go on."""
        kept = {self.learners.index(self.current), *([self._best] if self._scores else [])}
        return {
            "scores": torch.tensor(self._scores, dtype=torch.float64),
            "earned": self._earned,
            "learners": {str(index): self.learners[index].state_dict() for index in sorted(kept)},
        }

    def load_state_dict(self, state: State) -> None:
        self._scores = state["scores"].tolist()
        self._earned.copy_(state["earned"])
        for index, learner in state["learners"].items():
            self.learners[int(index)].load_state_dict(learner)
