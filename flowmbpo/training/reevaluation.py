"""Evaluates checkpoints after training and writes the results beside them; which ones is the caller's choice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flowmbpo.data_types import JSON
from flowmbpo.runs import checkpoint
from flowmbpo.runs.files import BrokenFile
from flowmbpo.tracking.evaluations import EvaluationProtocol, EvaluationWriter
from flowmbpo.tracking.mlflow_artifacts import checkpoint_folder
from flowmbpo.tracking.records import CheckpointRecord, RunRecord
from flowmbpo.tracking.store import Store
from flowmbpo.training import builder, loading
from flowmbpo.training.devices import reuse_freed_memory
from flowmbpo.training.evaluator import Evaluation, Evaluator, protocol
from flowmbpo.training.schemes import judge_schemes

DEFAULT_SEED, DEFAULT_EPISODES = 10_000, 128  # of runs whose params do not say


@dataclass(frozen=True)
class Reevaluation:
    """What became of one checkpoint: its `eval/*` metrics, or why there are none; under other schemes also these."""

    run: RunRecord
    checkpoint: CheckpointRecord
    how: EvaluationProtocol
    metrics: Mapping[str, JSON]
    skipped: bool = False  # its newest evaluation is of this kind already
    error: str | None = None


class Reevaluator:
    """Evaluates one checkpoint after the other; environments are built once for each kind and kept, and one client
    writes all results."""

    def __init__(self, store: Store, device: str) -> None:
        reuse_freed_memory()
        self.store = store
        self.device = device
        self._writer = EvaluationWriter(store)
        self._evaluators: dict[str, Evaluator] = {}

    def __call__(
        self, run: RunRecord, found: CheckpointRecord, episodes: int | None, *, skip_current: bool
    ) -> Reevaluation:
        """Full episodes of one policy, `episodes` of them (None: as many as its run's own evaluations)."""
        how = _protocol(run, episodes or run.whole_param("evaluation.episodes"))
        if skip_current and how.was_used_for(found):
            return Reevaluation(run, found, how, _evaluation(found.metrics), skipped=True)
        try:
            with checkpoint_folder(self.store, found) as folder:
                metrics = self.evaluate(folder, how).metrics
        except (BrokenFile, FileNotFoundError) as error:
            return Reevaluation(run, found, how, {}, error=str(error))
        self._writer.write(run, found, metrics, how)
        return Reevaluation(run, found, how, metrics)

    def schemes(
        self,
        run: RunRecord,
        found: CheckpointRecord,
        episodes: int | None,
        substeps: Sequence[int],
        integrators: Sequence[str],
    ) -> Iterator[Reevaluation]:
        """One policy's flow under each scheme (see `judge_schemes`); nothing is written."""
        how = _protocol(run, episodes)
        try:
            with checkpoint_folder(self.store, found) as folder:
                for judged in judge_schemes(folder, how, substeps, integrators, self.device):
                    yield Reevaluation(run, found, how, judged)
        except (BrokenFile, FileNotFoundError) as error:
            yield Reevaluation(run, found, how, {"integrator": None, "substeps": None}, error=str(error))

    def evaluate(self, folder: Path, how: EvaluationProtocol) -> Evaluation:
        """The policy in `folder`. Raises BrokenFile when it is not an intact checkpoint."""
        found = checkpoint.verify(folder, "checkpoint")
        experiment = loading.experiment_of(found)
        key = f"{experiment.env!r} {how}"
        if key not in self._evaluators:
            self._evaluators[key] = builder.build_evaluator(experiment, how.episodes, how.seed, self.device)
        return self._evaluators[key](loading.load_policy(found, self.device))


def _protocol(run: RunRecord, episodes: int | None) -> EvaluationProtocol:
    seed = run.whole_param("evaluation.seed")
    return protocol(DEFAULT_SEED if seed is None else seed, episodes or DEFAULT_EPISODES)


def _evaluation(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name.startswith("eval/")}
