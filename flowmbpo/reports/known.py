"""What the registry says about an experiment, as a comparison needs it: spec, expectation, size, references.

Not here: what was measured (`rows`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowmbpo.spec.identity import identity, spec_hash
from flowmbpo.spec.references import EarlierReference, PublishedReference
from flowmbpo.spec.registry import Registry, load_registry


@dataclass(frozen=True)
class Known:
    """One experiment of today's registry. `spec` holds its values by dotted key, as JSON has them."""

    name: str
    description: str = ""
    aliases: tuple[str, ...] = ()
    spec: dict[str, Any] = field(default_factory=dict)
    spec_hash: str = ""
    nominal_params: str | None = None
    params: int | None = None
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
        params=None,
        expected=expected or None,
        earlier=tuple(
            reference.model_dump(mode="json", exclude_none=True)
            for reference in references
            if isinstance(reference, EarlierReference) and reference.experiment == name
        ),
        published=_best_published(registry, spec.env.kind),
    )


def published(registry: Registry, env: str = "ant") -> list[PublishedReference]:
    """Published results in one environment, best final R first."""
    found = [r for r in registry.references.values() if isinstance(r, PublishedReference) and r.env == env]
    return sorted(found, key=lambda reference: -(reference.final_reward or float("-inf")))


def _best_published(registry: Registry, env: str) -> dict[str, Any] | None:
    """The result to beat: the highest published mean over seeds."""
    found = [reference for reference in published(registry, env) if reference.final_reward is not None]
    return found[0].model_dump(mode="json", exclude_none=True) if found else None
