"""What the registry says about an experiment, as a comparison needs it: spec, expectation, size, references.

Not here: what was measured (`rows`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flowmbpo.spec.identity import identity, spec_hash
from flowmbpo.spec.parameters import ParameterCounts, count_parameters
from flowmbpo.spec.references import EarlierReference, PublishedReference
from flowmbpo.spec.registry import Registry, load_registry
from flowmbpo.spec.schema import Experiment
from flowmbpo.tracking.records import RunRecord


@dataclass(frozen=True)
class Known:
    """One experiment of today's registry. `spec` holds its values by dotted key, as JSON has them."""

    name: str
    description: str = ""
    aliases: tuple[str, ...] = ()
    spec: dict[str, Any] = field(default_factory=dict)
    spec_hash: str = ""
    nominal_params: str | None = None
    params: ParameterCounts | None = None
    expected: dict[str, Any] | None = None
    earlier: tuple[dict[str, Any], ...] = ()
    published: dict[str, Any] | None = None


def as_registry(registry: Registry | Path | None) -> Registry:
    """A registry from itself, its file, or where it is found by default."""
    return registry if isinstance(registry, Registry) else load_registry(registry)


def known_experiments(registry: Registry) -> dict[str, Known]:
    """Everything that can be run, by name, in the order of the file."""
    return {name: _known(registry, name) for name in registry.names()}


def _known(registry: Registry, name: str) -> Known:
    spec = registry.resolve(name).spec
    expected = {key: value for key, value in spec.expected.model_dump(mode="json").items() if value not in (None, "")}
    references = registry.references.values()
    return Known(
        name=name,
        description=spec.description,
        aliases=spec.aliases,
        spec=json.loads(json.dumps(identity(spec))),
        spec_hash=spec_hash(spec),
        nominal_params=spec.family or None,
        params=count_parameters(spec),
        expected=expected or None,
        earlier=tuple(
            reference.model_dump(mode="json", exclude_none=True)
            for reference in references
            if isinstance(reference, EarlierReference) and reference.experiment == name
        ),
        published=_best_published(registry, spec.env.kind),
    )


def published(registry: Registry, env: str = "ant") -> dict[str, PublishedReference]:
    """Published results in one environment by their key in the registry, best final R first."""
    found = {
        key: reference
        for key, reference in registry.references.items()
        if isinstance(reference, PublishedReference) and reference.env == env
    }
    return dict(sorted(found.items(), key=lambda item: -(item[1].final_reward or float("-inf"))))


def _best_published(registry: Registry, env: str) -> dict[str, Any] | None:
    """The result to beat: the highest published mean over seeds."""
    for key, reference in published(registry, env).items():
        if reference.final_reward is not None:
            return {"key": key, **reference.model_dump(mode="json", exclude_none=True)}
    return None


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


def parse_param(text: str) -> Any:
    """The value behind a logged param: JSON where it is JSON, else the text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
