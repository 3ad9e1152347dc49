"""The training loop: epochs, what is logged when, evaluations, checkpoints, stopping. Knows nothing of PWM's inside."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from flowmbpo.algorithms.contract import Algorithm
from flowmbpo.algorithms.held_out import HeldOut
from flowmbpo.data_types import State
from flowmbpo.errors import WorkFailed
from flowmbpo.runs.journal import PHASE_TAG
from flowmbpo.spec.schema import Experiment
from flowmbpo.tracking.tracker import Tracker
from flowmbpo.training.checkpoint_writer import CheckpointWriter
from flowmbpo.training.clock import PhaseClock
from flowmbpo.training.devices import peak_memory
from flowmbpo.training.episodes import EpisodeRecorder
from flowmbpo.training.evaluator import Evaluator
from flowmbpo.training.monitor import CollapseMonitor
from flowmbpo.training.progress import Pace, Progress, Watcher
from flowmbpo.training.seeding import random_states, restore_random_states
from flowmbpo.training.signals import StopRequest

PATIENCE_SECONDS = 2.0  # a phase that is younger goes on to its end
PHASE_SECONDS = 10.0  # between two words about a long one
SILENCE_SECONDS = 60.0  # of epochs that take long without a long phase
RESUMABLE_SECONDS = 600.0  # a kill -9 loses at most this much training, or what came after the last checkpoint_interval


@dataclass(kw_only=True, eq=False, repr=False)
class Trainer:
    """Trains one experiment with one seed from `epoch` to `stop_epoch`, a time limit or a signal."""

    experiment: Experiment
    algorithm: Algorithm
    env: EpisodeRecorder
    evaluator: Evaluator
    held_out: HeldOut
    tracker: Tracker
    checkpoints: CheckpointWriter
    watcher: Watcher
    stop: StopRequest
    stop_epoch: int
    time_limit: float | None
    clock: PhaseClock

    def __post_init__(self) -> None:
        self.epoch = 0
        self.peak_reward: float | None = None
        self.final_reward: float | None = None
        self.metrics: dict[str, float] = {}
        self.monitor = CollapseMonitor()
        self._collapsed = False  # and the spec says that this ends the run
        self._elapsed_before = 0.0  # seconds of training before this process resumed it
        self._started = self._resumable_at = time.monotonic()
        self._ended: float | None = None
        self._saved = -1  # epoch of the newest resumable state
        self._refused = 0
        self._tracked = self.tracker.seconds
        self._phase, self._phase_started = "", 0.0
        self._heard_at = self._started  # when a point or a word was last given
        self._word_shown = self._was_long = False  # since the last point; and in a phase that took long
        self._pace = Pace(self.experiment.train.resting_epochs)
        self.algorithm.interrupt_with(self._may_go_on)
        self._reset_sums()

    # --- the loop ----------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Run until the last epoch, the time limit or a signal. Raises WorkFailed when training diverged."""
        spec = self.experiment
        self._started = self._resumable_at = self._heard_at = time.monotonic()
        if self.epoch >= self.stop_epoch:  # evaluating once more is no training
            self._ended = self._started
        evaluated = -1
        while self.epoch < self.stop_epoch and not (self.stop or self._collapsed or self._out_of_time()):
            if not self._run_epoch():
                break
            numbered = self.epoch % spec.train.checkpoint_interval == 0
            last = self.epoch == self.stop_epoch
            if numbered or last or self.epoch % spec.evaluation.interval == 0:
                self._evaluate()  # before the point is shown, so that it carries this evaluation and not an older one
                evaluated = self.epoch
            if last or self.epoch % spec.train.log_interval == 0:
                self._log()
            else:
                self._break_silence()
            if numbered or time.monotonic() - self._resumable_at > RESUMABLE_SECONDS:
                self.save()
        unfinished = bool(self.algorithm.unfinished)
        kept = evaluated == self.epoch or (unfinished and self.epoch in self.checkpoints.files.checkpoint_epochs())
        if not self.stop and not kept:
            self._evaluate()
        elif self.stop and not kept:
            self.checkpoints.write(self.algorithm.deployable_state(), self.epoch, self.env_steps, None)
        self._ended = self._ended or time.monotonic()
        if self._saved != self.epoch or unfinished:
            self.save()

    @property
    def env_steps(self) -> int:
        return self.epoch * self.algorithm.env_steps_per_epoch

    @property
    def elapsed(self) -> float:
        """Seconds of training, those before a resume included."""
        return self._elapsed_before + (self._ended or time.monotonic()) - self._started

    def _out_of_time(self) -> bool:
        return self.time_limit is not None and time.monotonic() - self._started >= self.time_limit

    def _run_epoch(self) -> bool:
        """Train one epoch, or the rest of one; False where it was interrupted inside."""
        self.clock.start()
        if news := self.algorithm.begin_epoch(self.epoch):
            self.monitor = CollapseMonitor()
            self.watcher.message(f"epoch {self.epoch}: {news}")
        for name, phase in self.algorithm.phases:
            self._phase, self._phase_started = name, time.monotonic()
            for key, value in phase().items():
                self._sums[key] = self._sums[key] + value if key in self._sums else value
                self._counts[key] = self._counts.get(key, 0) + 1  # a phase that rests, as in the warm-up, says nothing
            self.clock.lap(name)
            if self.algorithm.unfinished:
                break
        for name, seconds in self.clock.stop().items():
            self._seconds[name] = self._seconds.get(name, 0.0) + seconds
        if self.algorithm.unfinished:
            return False
        self._epochs_summed += 1
        self.epoch += 1
        return True

    def _may_go_on(self, done: int, total: int) -> bool:
        """Inside a phase that takes long: show how far it is, keep a state, end it for a signal or the time limit."""
        now = time.monotonic()
        if now - self._phase_started < PATIENCE_SECONDS:
            return True
        if self.stop or self._out_of_time():
            return False
        if now - self._heard_at >= PHASE_SECONDS:
            self._was_long |= now - self._phase_started >= PHASE_SECONDS
            self._tell(f"epoch {self.epoch + 1:,}, {self._phase.replace('_', ' ')}: {done:,} of {total:,} updates")
        if now - self._resumable_at > RESUMABLE_SECONDS:
            self.save()
        return True

    def _break_silence(self) -> None:
        """After an epoch without a point: a long phase of which there was word is over, or there was none for long."""
        if self._was_long or time.monotonic() - self._heard_at >= SILENCE_SECONDS:
            self._was_long = False
            self._tell(f"epoch {self.epoch:,} of {self.stop_epoch:,} is done")

    def _tell(self, text: str) -> None:
        self._heard_at, self._word_shown = time.monotonic(), True
        self.watcher.phase(text)
        self.tracker.tags({PHASE_TAG: text})

    # --- what is logged ----------------------------------------------------------------------------------------------

    def _reset_sums(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._seconds: dict[str, float] = {}
        self._epochs_summed = 0

    def _log(self) -> None:
        """One point: means over the epochs since the last one. The only place where numbers leave the device."""
        count = self._epochs_summed
        self._seconds["tracking"] = self._seconds.get("tracking", 0.0) + self.tracker.seconds - self._tracked
        self._tracked = self.tracker.seconds
        names = list(self._sums)
        sums = torch.stack([self._sums[name].float() for name in names]).tolist() if names else []
        metrics = {name: total / self._counts[name] for name, total in zip(names, sums, strict=True)}
        metrics |= self.env.statistics()
        metrics |= {f"perf/{name}_seconds": seconds / count for name, seconds in self._seconds.items()}
        metrics["perf/env_steps_per_second"] = count * self.algorithm.env_steps_per_epoch / self._seconds["epoch"]
        metrics |= peak_memory(self.env.device.type) | self.algorithm.counters()
        metrics["train/epoch"] = float(self.epoch)
        metrics["train/nonfinite_updates"] = float(self._check_finite())
        self._reset_sums()
        if self._word_shown:
            self.tracker.tags({PHASE_TAG: ""})
        self._heard_at, self._word_shown, self._was_long = time.monotonic(), False, False
        self.tracker.log(metrics, self.env_steps)
        self.metrics |= metrics
        self._watch_reward(metrics.get("train/episode_reward"))
        self.watcher.progress(self._progress())

    def _watch_reward(self, reward: float | None) -> None:
        if reward is None:
            return
        self.final_reward = reward
        self.peak_reward = reward if self.peak_reward is None else max(self.peak_reward, reward)
        if self.monitor.observe(reward):
            self._collapsed = self.experiment.train.on_collapse == "stop"
            self.watcher.message(
                f"epoch {self.epoch}: the policy has collapsed: R {reward:.0f}, peak {self.monitor.peak:.0f}. "
                f"The best evaluated checkpoint is kept{', and the run ends here' if self._collapsed else ''}",
                warning=True,
            )
            self.tracker.tags({"flowmbpo.collapsed_at_epoch": str(self.epoch)})

    def _check_finite(self) -> int:
        """Count refused updates; too many end the run."""
        counts = {name: int(count) for name, count in self.algorithm.nonfinite.items()}
        total = sum(counts.values())
        if total > self._refused:
            where = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
            limit = self.experiment.train.nonfinite_limit
            self.watcher.message(
                f"epoch {self.epoch}: non-finite values refused so far: {where} (the run ends above {limit})",
                warning=True,
            )
            self._refused = total
            if total > limit:
                kept = self.checkpoints.files.checkpoint_epochs()
                raise WorkFailed(
                    f"diverged by epoch {self.epoch}: {total} non-finite values ({where}); {limit} are allowed. "
                    + (
                        f"The checkpoints in {self.checkpoints.files.checkpoints} are from before"
                        if kept
                        else "It was too early for a checkpoint"
                    )
                )
        return total

    def _progress(self) -> Progress:
        limits = [self.epoch / self.stop_epoch]
        here = time.monotonic() - self._started
        if self.time_limit:
            limits.append(min(1.0, here / self.time_limit))
        fraction = max(limits)
        eta = self._pace.eta(self.epoch, self.stop_epoch, self.elapsed)
        if self.time_limit:
            left = max(0.0, self.time_limit - here)
            eta = left if eta is None else min(eta, left)
        return Progress(self.epoch, self.stop_epoch, self.env_steps, fraction, self.elapsed, eta, dict(self.metrics))

    # --- what is kept ------------------------------------------------------------------------------------------------

    def _evaluate(self) -> None:
        self._check_finite()
        evaluation = self.evaluator(self.algorithm.policy(), self.held_out)
        metrics = dict(evaluation.metrics)
        diagnostics = self.algorithm.diagnose(self.held_out)
        metrics |= {name: value.item() for name, value in diagnostics.items()}
        self.tracker.log(metrics, self.env_steps)
        self.metrics |= metrics
        self.checkpoints.write(self.algorithm.deployable_state(), self.epoch, self.env_steps, evaluation)

    def save(self) -> None:
        """Write everything that bit-exact continuation needs. Raises WorkFailed rather than keep a diverged state."""
        self._check_finite()
        unfinished = self.algorithm.unfinished
        self.checkpoints.write_resumable(self.state_dict(), self.epoch, self.env_steps, unfinished)
        self._resumable_at, self._saved = time.monotonic(), self.epoch

    def state_dict(self) -> State:
        return {
            "algorithm": self.algorithm.state_dict(),
            "env": self.env.state_dict(),
            "random": random_states(),
            "monitor": self.monitor.state_dict(),
            "sums": dict(self._sums),
            "counts": dict(self._counts),
            "trainer": {
                "epoch": self.epoch,
                "peak_reward": self.peak_reward,
                "final_reward": self.final_reward,
                "best_reward": self.checkpoints.best_reward,
                "elapsed": self.elapsed,
                "refused": self._refused,
                "epochs_summed": self._epochs_summed,
                "seconds": dict(self._seconds),
            },
        }

    def load_state_dict(self, state: State) -> None:
        self.algorithm.load_state_dict(state["algorithm"])
        self.env.load_state_dict(state["env"])
        self.monitor.load_state_dict(state["monitor"])
        counters = state["trainer"]
        self.epoch = counters["epoch"]
        self.peak_reward = counters["peak_reward"]
        self.final_reward = counters["final_reward"]
        self.checkpoints.best_reward = counters["best_reward"]
        self._elapsed_before = counters["elapsed"]
        self._refused = counters["refused"]
        self._epochs_summed = counters["epochs_summed"]
        self._seconds = dict(counters["seconds"])
        self._sums = dict(state["sums"])
        self._counts = dict(state["counts"])
        restore_random_states(state["random"])
