"""Whether a run may be continued here: how its spec and its code differ from today's. Reads; continues nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flowmbpo import __version__
from flowmbpo.spec.identity import diff
from flowmbpo.spec.problems import RegistryError
from flowmbpo.spec.registry import UnknownExperiment, find_registry, load_registry
from flowmbpo.spec.schema import Experiment
from flowmbpo.tracking import provenance

_PACKAGES = ("torch", "warp-lang")  # they decide the numbers too


def code_versions() -> dict[str, str]:
    """What computes a run's numbers: flowmbpo, its commit where it is a checkout, torch and Warp."""
    origin = provenance.collect()
    commit = {"git commit": origin.commit} if origin.commit else {}
    return {"flowmbpo": __version__, **commit, **{name: origin.packages.get(name, "") for name in _PACKAGES}}


def code_changes(then: Mapping[str, Any]) -> list[str]:
    """How today's versions differ from those of a run; what only one of the two knows is not compared."""
    now = code_versions()
    return [f"{name}: {then[name]} -> {now[name]}" for name in now if name in then and then[name] != now[name]]


def registry_changes(stored: Experiment, overrides: Sequence[str], registry: Path | None) -> list[str]:
    """How the run's spec differs from what the same name and the same `--set` mean in today's registry."""
    file = find_registry(registry)
    try:
        today = load_registry(registry).resolve(stored.name, list(overrides)).spec
    except UnknownExperiment:
        return [f"{file} has no experiment {stored.name!r}"]
    except RegistryError as error:
        return [f"{file} is not valid with it: {error.problems[0].message} (`flowmbpo validate` lists everything)"]
    return [f"{key}: {then!r} -> {now!r}" for key, (then, now) in diff(stored, today).items()]
