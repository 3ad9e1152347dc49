"""Evaluates checkpoints after training, from their folders; where they lie and who wants them is not known here."""

from __future__ import annotations

from pathlib import Path

from flowmbpo.runs import checkpoint
from flowmbpo.tracking.evaluations import EvaluationProtocol
from flowmbpo.training import builder
from flowmbpo.training.evaluator import Evaluation, Evaluator


class Reevaluator:
    """Evaluates one checkpoint after the other; environments are built once for each kind and kept."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._evaluators: dict[str, Evaluator] = {}

    def __call__(self, folder: Path, how: EvaluationProtocol) -> Evaluation:
        """Full episodes of the policy in `folder`. Raises BrokenFile when it is not an intact checkpoint."""
        found = checkpoint.verify(folder, "checkpoint")
        experiment = builder.experiment_of(found)
        key = f"{experiment.env!r} {how}"
        if key not in self._evaluators:
            self._evaluators[key] = builder.build_evaluator(experiment, how.episodes, how.seed, self.device)
        return self._evaluators[key](builder.load_policy(found, self.device))
