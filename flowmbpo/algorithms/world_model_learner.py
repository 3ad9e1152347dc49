"""How the world model learns: from replayed sequences of real steps, and from recorded ones before the first of them.

Not here: the model and its loss (`models.world_model`) and when in an epoch it learns (`pwm`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

import torch

from flowmbpo.algorithms.contract import Statistics
from flowmbpo.algorithms.held_out import HeldOut
from flowmbpo.algorithms.normalizers import ObservationNormalizer, Scale
from flowmbpo.algorithms.optimization import GuardedAdam, autocast
from flowmbpo.algorithms.replay import Replay, Sequences
from flowmbpo.data_types import State
from flowmbpo.models.world_model import WorldModel
from flowmbpo.spec.schema import TrainSpec


class Updates(TypedDict):
    """Of a series of updates: how many are done of how many, and the sums of their statistics."""

    done: int
    total: int
    sums: Statistics


class WorldModelLearner:
    """A world model with its optimiser, and how far its learning is, also inside a long series of updates.

    `tick(done, total)` is called between two updates and says whether they may go on. Where not, `unfinished` names the
    series, and the method that was interrupted goes on with the rest of it when it is called again.
    """

    def __init__(
        self,
        world_model: WorldModel,
        *,
        train: TrainSpec,
        observations: ObservationNormalizer,
        reward_scale: Scale,
        replay: Replay,
        recorded: HeldOut | None,
        generator: torch.Generator,
    ) -> None:
        self.world_model = world_model
        self.train = train
        self.observations, self.reward_scale = observations, reward_scale
        self.replay, self.recorded = replay, recorded
        self.generator = generator
        parameters = list(world_model.parameters())
        self.optimizer: GuardedAdam | None = None
        """None for the simulator, which has nothing to learn."""
        if parameters:
            self.optimizer = GuardedAdam(
                parameters,
                learning_rate=train.wm_learning_rate,
                betas=train.wm_adam_betas,
                grad_norm=train.wm_grad_norm,
            )
        self.updates = 0
        self.caught_up = self.optimizer is None
        """Whether the many first updates have begun: before them the model has no gradient worth following."""
        self.pretraining_left = train.pretrain.updates if train.pretrain else 0
        self.tick: Callable[[int, int], bool] = lambda done, total: True
        self.unfinished = ""
        self._series: Updates = {"done": 0, "total": 0, "sums": {}}

    def pretrain(self) -> Statistics:
        """`train.pretrain.updates` steps on the recorded transitions."""
        count, self.pretraining_left, self.caught_up = self.pretraining_left, 0, True
        statistics = self._improve("pretrain", count, self._recorded_sequences)
        self._forget_recorded()
        return statistics

    def update(self, epoch: int) -> Statistics:
        """`wm_updates` steps on replayed sequences; once, from `wm_first_epoch` on, `wm_first_updates`.

        No update while no stored episode is long enough for one sequence; to know that, an epoch reads one number.
        """
        if self.optimizer is None:
            return {}
        warming_up = epoch + 1 < self.train.warmup_epochs
        if not self.unfinished and (warming_up or self.replay.starts(self.train.sequence_length).empty):
            return {}
        count = self.train.wm_updates
        if not self.caught_up and epoch + 1 >= self.train.wm_first_epoch:
            count, self.caught_up = self.train.wm_first_updates, True
        return self._improve("world_model", count, self._replayed_sequences)

    @property
    def dynamics_evaluations(self) -> float:
        """Evaluations of the dynamics network that learning costs in an epoch, one per state."""
        if self.optimizer is None:
            return 0.0
        per_sequence = self.world_model.evaluations_per_sequence(self.train.sequence_length)
        return self.train.wm_updates * self.train.wm_batch_size * per_sequence

    def _recorded_sequences(self) -> Sequences:
        assert self.recorded is not None
        batch = self.recorded.sample(self.train.wm_batch_size, self.train.sequence_length, self.generator)
        assert batch is not None  # `read_recorded` has looked
        return batch

    def _forget_recorded(self) -> None:
        """Unless they are still needed: their memory is."""
        if not self.pretraining_left and self.unfinished != "pretrain":
            self.recorded = None

    def _replayed_sequences(self) -> Sequences:
        return self.replay.sample(self.train.wm_batch_size, self.train.sequence_length, self.generator)

    def _improve(self, name: str, count: int, draw: Callable[[], Sequences]) -> Statistics:
        """`count` updates, each on a batch from `draw`; of an interrupted series what is left of them. Says nothing
        where it is interrupted again."""
        if not self.unfinished:
            self.unfinished, self._series = name, {"done": 0, "total": count, "sums": {}}
        series = self._series
        sums = series["sums"]
        while series["done"] < series["total"]:
            for key, value in self._step(draw()).items():
                sums[key] = sums[key] + value if key in sums else value
            series["done"] += 1
            self.updates += 1
            if series["done"] < series["total"] and not self.tick(series["done"], series["total"]):
                return {}
        self.unfinished, series["sums"] = "", {}
        return {f"train/{key}": value / series["total"] for key, value in sums.items()}

    def _step(self, batch: Sequences) -> Statistics:
        assert self.optimizer is not None
        with autocast(self.train.precision, self.generator.device):
            loss, parts = self.world_model.loss(
                self.observations(batch.obs),
                batch.actions,
                self.reward_scale(batch.rewards),
                discount=self.train.wm_step_discount,
                reward_weight=self.train.wm_reward_weight,
                decoder_weight=self.train.wm_decoder_weight,
                terminated=batch.terminated,
                generator=self.generator,
            )
        norm = self.optimizer.step(loss)
        parts.pop("reward_correlation", None)  # the one of the real steps is logged instead
        return {**parts, "world_model_loss": loss.detach(), "world_model_gradient_norm": norm}

    def state_dict(self) -> State:
        """How far learning is; the model's weights and the optimiser have states of their own."""
        return {
            "world_model_updates": self.updates,
            "caught_up": self.caught_up,
            "pretrain_left": self.pretraining_left,
            "unfinished": self.unfinished,
            "updates": {**self._series, "sums": dict(self._series["sums"])},
        }

    def load_state_dict(self, state: State) -> None:
        """Inverse of `state_dict`; other keys are ignored."""
        self.updates = int(state["world_model_updates"])
        self.caught_up = bool(state["caught_up"])
        self.pretraining_left = int(state["pretrain_left"])
        self.unfinished = str(state["unfinished"])
        series = state["updates"]
        sums = {name: value.to(self.generator.device) for name, value in series["sums"].items()}
        self._series = {"done": int(series["done"]), "total": int(series["total"]), "sums": sums}
        self._forget_recorded()
