"""Writes evaluations that were made after training, linked to their checkpoints; says how each was made.

Not here: evaluating, and choosing what needs it (`flowmbpo eval`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from flowmbpo.tracking.metrics import check_names
from flowmbpo.tracking.mlflow_client import open_client, translated
from flowmbpo.tracking.mlflow_writer import log_model_metrics
from flowmbpo.tracking.records import EVALUATION_TAG, CheckpointRecord, RunRecord
from flowmbpo.tracking.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class EvaluationProtocol:
    """How a checkpoint was evaluated; results of different protocols are not compared."""

    version: int  # of the evaluation code
    seed: int
    episodes: int

    def tags(self) -> dict[str, str]:
        """The tag of a logged model that says so."""
        return {EVALUATION_TAG: json.dumps(asdict(self), sort_keys=True)}

    def was_used_for(self, checkpoint: CheckpointRecord) -> bool:
        """Whether the checkpoint's newest evaluation was made this way."""
        return checkpoint.mean_reward is not None and checkpoint.tags.get(EVALUATION_TAG) == self.tags()[EVALUATION_TAG]


class EvaluationWriter:
    """Writes evaluations into one store, through one client that is opened for the first of them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._client: MlflowClient | None = None

    def write(
        self, run: RunRecord, checkpoint: CheckpointRecord, metrics: Mapping[str, float], how: EvaluationProtocol
    ) -> None:
        """Log `eval/*` metrics of one checkpoint at the environment steps of its training.

        Raises:
            ValueError: a metric that is not in the catalogue.
            WorkFailed: the store cannot be reached.
        """
        check_names(metrics)
        self._client = client = self._client or open_client(self.store, write=True)
        step, now = checkpoint.env_steps or 0, int(time.time() * 1000)
        with translated(self.store):
            log_model_metrics(client, run.mlflow_run_id, checkpoint.model_id, metrics, step, now)
            client.set_logged_model_tags(checkpoint.model_id, how.tags())
