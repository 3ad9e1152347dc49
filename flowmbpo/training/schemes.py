"""Judges one trained flow under other integration schemes than its own, without training: what do substeps bring?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from flowmbpo.data_types import Document
from flowmbpo.errors import UserError
from flowmbpo.runs import checkpoint
from flowmbpo.spec.schema import FlowWorldModelSpec
from flowmbpo.tracking.evaluations import EvaluationProtocol
from flowmbpo.training import builder, loading


def judge_schemes(
    folder: Path, how: EvaluationProtocol, substeps: Sequence[int], integrators: Sequence[str], device: str
) -> Iterator[Document]:
    """For each scheme its name, cost, evaluation (`eval/*`) and the model's diagnostics (`model/*`) on those episodes.

    The episodes start alike for all schemes. Without `integrators`, the one it was trained with. Raises BrokenFile when
    `folder` is not an intact checkpoint, UserError when its model is not integrated, or not so.
    """
    found = checkpoint.verify(folder, "checkpoint")
    experiment = loading.experiment_of(found)
    model = experiment.world_model
    if not isinstance(model, FlowWorldModelSpec):
        raise UserError(
            f"{experiment.name}: world_model.kind is {model.kind!r}, whose step is not integrated; "
            "only a flow has substeps"
        )
    learner = loading.load_learner(found, device)
    evaluator = builder.build_evaluator(experiment, how.episodes, how.seed, device)
    held_out = builder.build_held_out(learner.collector.env, how.episodes)
    dynamics = learner.world_model.dynamics
    for integrator in integrators or [model.integrator]:
        for count in substeps:
            try:
                dynamics.set_scheme(integrator, count)
            except ValueError as error:
                raise UserError(f"{experiment.name}: {error}") from None
            evaluation = evaluator(learner.policy(), held_out)
            scores = {name: float(value) for name, value in learner.diagnose(held_out).items()}
            yield {
                "integrator": integrator,
                "substeps": count,
                "evaluations_per_step": dynamics.evaluations_per_step,
                **evaluation.metrics,
                **scores,
            }
