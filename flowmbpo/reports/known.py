"""What the registry says about an experiment, as a comparison needs it: spec, expectation, size, references.

Not here: what was measured (`rows`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from flowmbpo.spec.identity import identity, spec_hash
from flowmbpo.spec.parameters import ParameterCounts, count_parameters
from flowmbpo.spec.references import EarlierReference, PublishedReference
from flowmbpo.spec.registry import Registry, load_registry
from flowmbpo.spec.schema import Experiment
from flowmbpo.tracking.records import RunRecord


class Published(NamedTuple):
    """A published result and its key in the registry."""

    key: str
    result: PublishedReference


@dataclass(frozen=True)
class Known:
    """One experiment of today's registry, what was reached before with its settings, and the result to beat."""

    spec: Experiment
    earlier: tuple[EarlierReference, ...] = ()
    published: Published | None = None

    @cached_property
    def values(self) -> Mapping[str, object]:
        """Its identity by dotted key, as JSON has it."""
        found: Mapping[str, object] = json.loads(json.dumps(identity(self.spec)))
        return found

    @cached_property
    def spec_hash(self) -> str:
        return spec_hash(self.spec)

    @cached_property
    def params(self) -> ParameterCounts:
        return count_parameters(self.spec)


def as_registry(registry: Registry | Path | None) -> Registry:
    """A registry from itself, its file, or where it is found by default."""
    return registry if isinstance(registry, Registry) else load_registry(registry)


def known_experiments(registry: Registry) -> dict[str, Known]:
    """Everything that can be run, by name, in the order of the file."""
    return {name: _known(registry, name) for name in registry.names()}


def _known(registry: Registry, name: str) -> Known:
    spec = registry.resolve(name).spec
    references = registry.references.values()
    earlier = tuple(one for one in references if isinstance(one, EarlierReference) and one.experiment == name)
    measured = (Published(*item) for item in published(registry, spec.env.kind).items())
    return Known(spec, earlier, next((one for one in measured if one.result.final_reward is not None), None))


def published(registry: Registry, env: str = "ant") -> dict[str, PublishedReference]:
    """Published results in one environment by their key in the registry, best final R first."""
    found = {
        key: reference
        for key, reference in registry.references.items()
        if isinstance(reference, PublishedReference) and reference.env == env
    }
    return dict(sorted(found.items(), key=lambda item: -(item[1].final_reward or float("-inf"))))


def params_of(run: RunRecord, known: Known | None) -> ParameterCounts | None:
    """Trainable parameters of a run: from the spec it logged, else from what the registry says of its name."""
    if known is not None and run.tags.get("flowmbpo.spec_hash") == known.spec_hash:
        return known.params
    spec: dict[str, Any] = {}
    for key, text in run.params.items():
        *sections, last = key.split(".")
        place = spec
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                return known.params if known else None
        place[last] = parse_param(text)
    try:
        return count_parameters(Experiment.model_validate(spec))
    except (ValidationError, RecursionError):  # written by plain MLflow calls, or by another version
        return known.params if known else None


def parse_param(text: str) -> object:
    """The value behind a logged param: JSON where it is JSON, else the text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
