"""The registry: experiments.toml as validated experiments, or as the list of everything that is wrong with it.

Puts the other files of this room together. Prints nothing; the command line renders the problems it raises.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import flowmbpo
from flowmbpo.errors import UserError
from flowmbpo.spec import document, overrides
from flowmbpo.spec.groups import Group
from flowmbpo.spec.identity import flatten
from flowmbpo.spec.inheritance import Inherited, Origin
from flowmbpo.spec.learning import check_recorded
from flowmbpo.spec.loader import Loaded, Loader
from flowmbpo.spec.problems import Collector, Problem, RegistryError, TooManyProblems, did_you_mean, visible
from flowmbpo.spec.resolution import Entry, apply_rules, resolve
from flowmbpo.spec.schema import Experiment

FILE_NAME = "experiments.toml"


class UnknownExperiment(UserError):
    """A name that no entry of the registry has."""


@dataclass(frozen=True)
class ResolvedExperiment:
    """An experiment ready to run, with the origin of every value and what is doubtful about it."""

    spec: Experiment
    origins: Mapping[str, Origin]  # by dotted key
    warnings: tuple[Problem, ...] = ()


@dataclass
class Registry(Loaded):
    """A valid registry. Experiments keep the order of the file."""

    path: Path
    warnings: list[Problem] = field(default_factory=list)

    def names(self) -> list[str]:
        """Experiments that can be run, without abstract entries and aliases."""
        return [name for name, entry in self.entries.items() if not entry.abstract]

    def without_alias(self, selector: str) -> str:
        """A selector of runs, NAME or NAME/seed-N, with the name behind an alias; any other as it is."""
        name, slash, seed = selector.partition("/")
        return self.aliases.get(name, name) + slash + seed

    def canonical(self, name_or_alias: str) -> str:
        """The name behind a name or alias. Raises UnknownExperiment."""
        name = self.aliases.get(name_or_alias, name_or_alias)
        entry = self.entries.get(name)
        if entry is not None and not entry.abstract:
            return name
        if entry is not None:
            children = [n for n, e in self.entries.items() if not e.abstract and self._descends(n, name)]
            raise UnknownExperiment(
                f'"{name}" is abstract: it exists to be extended, not to be run. '
                f"Entries that extend it: {', '.join(children) or 'none'}"
            )
        known = [*self.names(), *self.aliases]
        hint = did_you_mean(name_or_alias, known)
        raise UnknownExperiment(
            f'unknown experiment "{visible(name_or_alias)}" in {self.path}. '
            f"{hint[:1].upper() + hint[1:] + ' ' if hint else ''}Known: {', '.join(known)}"
        )

    def canonical_names(self, names: Iterable[str]) -> list[str]:
        """The names behind names and aliases, each once. Raises UnknownExperiment."""
        return list(dict.fromkeys(map(self.canonical, names)))

    def _descends(self, name: str, ancestor: str) -> bool:
        origins = self.entries[name].inherited.origins.values()
        return any(origin.entry == ancestor for origin in origins)

    def resolve(self, name_or_alias: str, overrides: overrides.Overrides = ()) -> ResolvedExperiment:
        """The experiment with the overrides (`{"train.horizon": 8}` or `["train.horizon=8"]`) applied and validated.

        Raises UnknownExperiment for the name and RegistryError, naming `--set`, for the overrides.
        """
        entry = self.entries[self.canonical(name_or_alias)]
        assert entry.spec is not None
        collector = Collector()
        resolved, inherited = entry.spec, entry.inherited
        if overrides:
            resolved, inherited = _override(entry, overrides, collector)
        else:
            apply_rules(entry.name, inherited, resolved, entry.layer, collector)
        warnings = tuple(collector.sorted("warning"))
        origins = {key: inherited.origin(key) for key in flatten(resolved)}
        return ResolvedExperiment(resolved, origins, warnings)

    def to_train(self, names: Iterable[str], overrides: overrides.Overrides = ()) -> list[ResolvedExperiment]:
        """The experiments behind names and aliases, each once. Raises as `resolve` does, and UserError where recorded
        data that one of them is to learn from are missing."""
        resolved = [self.resolve(name, overrides) for name in self.canonical_names(names)]
        for experiment in resolved:
            check_recorded(experiment.spec.train.pretrain)
        return resolved

    def groups_of(self, name: str) -> dict[str, Group]:
        return {key: group for key, group in self.groups.items() if name in group.members}


def _override(entry: Entry, given: overrides.Overrides, collector: Collector) -> tuple[Experiment, Inherited]:
    spec, inherited = None, entry.inherited
    with suppress(TooManyProblems):
        layer = overrides.parse(given, collector)
        spec, inherited = resolve(entry.name, entry.inherited, layer, collector, whole=True)
    problems = collector.sorted()
    if problems:
        raise RegistryError(problems)
    assert spec is not None
    return spec, inherited


# --- finding and loading ---------------------------------------------------------------------------------------------


def find_registry(path: Path | None = None) -> Path:
    """The registry file: the given one, else ./experiments.toml, else the copy shipped with flowmbpo.

    The environment variable FLOWMBPO_REGISTRY is read by the command line, which passes it as `path`.
    """
    if path is not None:
        return path
    local = Path(FILE_NAME)
    if os.path.lexists(local):  # also a link that leads nowhere: another registry would be the wrong one
        return local
    package = Path(flowmbpo.__file__).parent
    installed, checkout = package / FILE_NAME, package.parent / FILE_NAME
    return installed if installed.exists() else checkout


def load_registry(path: Path | None = None) -> Registry:
    """Read and validate a registry. Raises RegistryError with every problem that was found."""
    file = find_registry(path)
    shown = Path(os.path.relpath(file)) if path is None else file
    return parse_registry(document.read(file), shown)


def parse_registry(content: bytes, path: Path = Path(FILE_NAME)) -> Registry:
    """Validate the bytes of a registry. Raises RegistryError with every problem that was found."""
    collector = Collector()
    text = document.parse(content, str(path))
    registry: Registry | None = None
    with suppress(TooManyProblems):
        collector.extend(text.problems)
        if text.data or not text.problems:
            registry = Registry(**vars(Loader(text, collector).load()), path=path)
    problems = collector.sorted()
    if problems or registry is None:
        raise RegistryError(problems or collector.sorted("warning"))
    registry.warnings = collector.sorted("warning")
    return registry
