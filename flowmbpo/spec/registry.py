"""The registry: experiments.toml as validated experiments, or as the list of everything that is wrong with it.

Puts the other files of this room together. Prints nothing; the command line renders the problems it raises.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flowmbpo
from flowmbpo.errors import UserError
from flowmbpo.spec import document, estimates, fields, groups, overrides, references, rules
from flowmbpo.spec.diagnosis import Finding, diagnose
from flowmbpo.spec.document import Document
from flowmbpo.spec.groups import Group
from flowmbpo.spec.identity import flatten, identity
from flowmbpo.spec.inheritance import Fragment, Inherited, Origin, ancestry, merge
from flowmbpo.spec.problems import (
    Collector,
    Problem,
    RegistryError,
    TooManyProblems,
    did_you_mean,
    plain,
    visible,
)
from flowmbpo.spec.references import EarlierReference, PublishedReference, ReferenceTable
from flowmbpo.spec.schema import Experiment

FILE_NAME = "experiments.toml"
TOP_LEVEL = ("experiments", "groups", "references")
CONTROLS = ("extends", "abstract")
MAX_ENTRIES = 1000  # of each of these tables
_NOT_INHERITED = ("name", "aliases", "description")


class UnknownExperiment(UserError):
    """A name that no entry of the registry has."""


@dataclass(frozen=True)
class ResolvedExperiment:
    """An experiment ready to run, with the origin of every value and what is doubtful about it."""

    spec: Experiment
    origins: Mapping[str, Origin]  # by dotted key
    warnings: tuple[Problem, ...] = ()


@dataclass
class _Entry:
    name: str
    inherited: Inherited
    fragment: Fragment
    abstract: bool
    spec: Experiment | None


@dataclass
class Registry:
    """A valid registry. Experiments keep the order of the file."""

    path: Path
    _entries: dict[str, _Entry]
    aliases: dict[str, str]
    groups: dict[str, Group] = field(default_factory=dict)
    references: dict[str, PublishedReference | EarlierReference] = field(default_factory=dict)
    warnings: list[Problem] = field(default_factory=list)

    def names(self) -> list[str]:
        """Experiments that can be run, without abstract entries and aliases."""
        return [name for name, entry in self._entries.items() if not entry.abstract]

    def canonical(self, name_or_alias: str) -> str:
        """The name behind a name or alias. Raises UnknownExperiment."""
        name = self.aliases.get(name_or_alias, name_or_alias)
        entry = self._entries.get(name)
        if entry is not None and not entry.abstract:
            return name
        if entry is not None:
            children = [n for n, e in self._entries.items() if not e.abstract and self._descends(n, name)]
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

    def _descends(self, name: str, ancestor: str) -> bool:
        origins = self._entries[name].inherited.origins.values()
        return any(origin.entry == ancestor for origin in origins)

    def resolve(self, name_or_alias: str, overrides: overrides.Overrides = ()) -> ResolvedExperiment:
        """The experiment with the overrides (`{"train.horizon": 8}` or `["train.horizon=8"]`) applied and validated.

        Raises UnknownExperiment for the name and RegistryError, naming `--set`, for the overrides.
        """
        entry = self._entries[self.canonical(name_or_alias)]
        assert entry.spec is not None
        collector = Collector()
        resolved, inherited = entry.spec, entry.inherited
        if overrides:
            resolved, inherited = _override(entry, overrides, collector)
        else:
            _apply_rules(entry.name, inherited, resolved, entry.fragment, collector)
        warnings = tuple(collector.sorted("warning"))
        origins = {key: inherited.origin(key) for key in flatten(resolved)}
        return ResolvedExperiment(resolved, origins, warnings)

    def groups_of(self, name: str) -> dict[str, Group]:
        """The comparison groups that an experiment is a member of."""
        return {key: group for key, group in self.groups.items() if name in group.members}


def _override(entry: _Entry, given: overrides.Overrides, collector: Collector) -> tuple[Experiment, Inherited]:
    spec, inherited = None, entry.inherited
    with suppress(TooManyProblems):
        fragment = overrides.parse(given, collector)
        spec, inherited = _settle(entry.name, entry.inherited, fragment, collector, whole=True)
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
    if local.exists():
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
            registry = _Loader(text, path, collector).load()
    problems = collector.sorted()
    if problems or registry is None:
        raise RegistryError(problems or collector.sorted("warning"))
    registry.warnings = collector.sorted("warning")
    return registry


class _Loader:
    """One pass over a parsed file; every problem goes to the collector."""

    def __init__(self, text: Document, path: Path, collector: Collector) -> None:
        self.text = text
        self.path = path
        self.collector = collector
        self.complete = not text.problems  # else keys may only seem to be missing

    def load(self) -> Registry:
        for key in self.text.data:
            if key not in TOP_LEVEL:
                hint = did_you_mean(key, TOP_LEVEL) or f"known here: {', '.join(TOP_LEVEL)}"
                self._report(Finding((key,), None, "unknown table or key", hint, at_key=True), ())
        tables = self._tables("experiments")
        if not tables and self.complete and "experiments" not in self.text.data:
            place = self.text.at(1, 1)
            message = "no experiments here"
            self.collector.add(Problem(place, message, "write a table [experiments.NAME]", key="experiments"))
        entries = self._entries(tables)
        aliases = self._aliases(entries)
        specs = {name: entry.spec for name, entry in entries.items() if entry.spec is not None}
        found_groups = self._groups(entries, specs, aliases)
        found_references = self._references(entries)
        in_order = {name: entries[name] for name in tables if name in entries}
        return Registry(self.path, in_order, aliases, found_groups, found_references)

    def _tables(self, section: str) -> dict[str, dict[str, Any]]:
        """The tables of a top-level section; anything else in it is a problem."""
        value = self.text.data.get(section, {})
        if not isinstance(value, dict):
            self._report(Finding((section,), value, f"must be a table of tables [{section}.NAME]"), ())
            return {}
        tables: dict[str, dict[str, Any]] = {}
        for name, table in value.items():
            if len(tables) == MAX_ENTRIES:
                message = f"more than {MAX_ENTRIES:,} tables; those from here on are not read"
                self._report(Finding((section, name), None, message, at_key=True), ())
                break
            if isinstance(table, dict):
                tables[name] = table
            else:
                finding = Finding((), table, f"must be a table [{section}.NAME]", at_key=True)
                self._report(finding, (section, name), name if section == "experiments" else None)
        return tables

    def _report(self, finding: Finding, base: tuple[str, ...], experiment: str | None = None) -> None:
        path = (*base, *finding.path)
        place = self.text.key(path) if finding.at_key or finding.missing else self.text.value(path)
        key = finding.key if experiment is not None else ".".join(part for part in path if isinstance(part, str))
        self.collector.add(Problem(place, finding.message, finding.hint, experiment, key, plain(finding.value)))

    # --- experiments

    def _entries(self, tables: dict[str, dict[str, Any]]) -> dict[str, _Entry]:
        parents: dict[str, str | None] = {}
        broken: set[str] = set()
        owners = _alias_owners(tables)
        for name, table in tables.items():
            parents[name] = self._parent(name, table, tables, owners, broken)
        order, cycles, too_long = ancestry(parents)
        for cycle in cycles:
            first = min(cycle, key=list(tables).index) if len(cycle) < 100 else cycle[0]
            turn = cycle[cycle.index(first) :] + cycle[: cycle.index(first)]
            chain = " → ".join([*turn[:10], *(["…"] if len(turn) > 10 else []), first])
            message = f"is a circle: {chain}"
            finding = Finding(("extends",), parents[first], message, "one of them must extend none of the others")
            self._report(finding, ("experiments", first), first)
            broken.update(cycle)
        for name in too_long:
            message = "has too many ancestors; 16 are allowed"
            self._report(Finding(("extends",), parents[name], message), ("experiments", name), name)
            broken.add(name)
        entries: dict[str, _Entry] = {}
        for name in order:
            parent = parents[name]
            base = Inherited({}, {}, set())
            if name in broken:
                base.unsound.add(())
            elif parent is not None:
                base = _heritage(entries[parent].inherited)
            entries[name] = self._entry(name, tables[name], base)
        if entries and all(entry.abstract for entry in entries.values()) and self.complete:
            finding = Finding((), None, "all experiments are abstract: none can be run", at_key=True)
            self._report(finding, ("experiments",))
        return entries

    def _parent(
        self,
        name: str,
        table: dict[str, Any],
        tables: Mapping[str, Any],
        owners: Mapping[str, str],
        broken: set[str],
    ) -> str | None:
        parent = table.get("extends")
        if parent is None:
            return None
        if isinstance(parent, str) and parent in tables:
            return parent
        broken.add(name)
        if isinstance(parent, str):
            message, hint = "no experiment has this name", did_you_mean(parent, tables)
            if parent in owners:
                message, hint = "is an alias", f"extend `{owners[parent]}` by its name"
        else:
            message, hint = "must be the name of one experiment", "there is one parent, written in quotation marks"
        self._report(Finding(("extends",), parent, message, hint), ("experiments", name), name)
        return None

    def _entry(self, name: str, table: dict[str, Any], base: Inherited) -> _Entry:
        where = ("experiments", name)
        abstract = table.get("abstract", False)
        if not isinstance(abstract, bool):
            message = "must be true or false (an abstract entry exists only to be extended)"
            self._report(Finding(("abstract",), abstract, message), where, name)
            abstract = False
        if "name" in table:
            message, hint = "the name of an experiment is that of its table", f"rename [experiments.{name}] instead"
            self._report(Finding(("name",), table["name"], message, hint, at_key=True), where, name)
        if abstract and table.get("aliases"):
            message = "an abstract entry cannot be run and needs no aliases"
            self._report(Finding(("aliases",), table["aliases"], message), where, name)
        own = {key: value for key, value in table.items() if key not in CONTROLS} | {"name": name}
        fragment = Fragment(
            own, lambda path: self.text.key((*where, *path)), lambda path: self.text.value((*where, *path)), name
        )
        whole = not abstract and self.complete
        spec, inherited = _settle(name, base, fragment, self.collector, whole)
        return _Entry(name, inherited, fragment, abstract, None if abstract else spec)

    def _aliases(self, entries: dict[str, _Entry]) -> dict[str, str]:
        aliases: dict[str, str] = {}
        for name, entry in entries.items():
            own = entry.inherited.values.get("aliases", ())
            for index, alias in enumerate(own):
                if alias in entries or alias in aliases:
                    owner = "an experiment of this name" if alias in entries else f"an alias of {aliases[alias]}"
                    finding = Finding(("aliases", index), alias, f'"{alias}" is {owner} already', "choose another")
                    self._report(finding, ("experiments", name), name)
                else:
                    aliases[alias] = name
        return aliases

    # --- comparison groups and references

    def _groups(
        self, entries: dict[str, _Entry], specs: dict[str, Experiment], aliases: dict[str, str]
    ) -> dict[str, Group]:
        found: dict[str, Group] = {}
        identities = {name: identity(spec) for name, spec in specs.items()}
        for name, table in self._tables("groups").items():
            diagnosis = diagnose(Group, table)
            for finding in diagnosis.findings:
                self._report(finding, ("groups", name))
            if not isinstance(diagnosis.model, Group) or diagnosis.findings:
                continue
            group = found[name] = diagnosis.model
            for index, member in enumerate(group.members):
                self._check_member(name, index, member, group, entries, aliases)
            for index, key, hint in groups.unknown_keys(group):
                self._report(Finding(("varies", index), key, "no experiment has this key", hint), ("groups", name))
            for difference in groups.forbidden_differences(group, identities):
                origin = entries[difference.member].inherited.origin(difference.key)
                if origin.place is None:  # then the first member is the one that says something about this key
                    origin = entries[difference.reference].inherited.origin(difference.key)
                place = origin.place or self.text.key(("groups", name))
                hint = f'make them equal, or add "{difference.key}" to groups.{name}.varies'
                message = f"must be the same in all of the group {name}: {difference.message}"
                value = plain(difference.value)
                self.collector.add(Problem(place, message, hint, difference.member, difference.key, value))
        return found

    def _check_member(
        self, name: str, index: int, member: str, group: Group, entries: dict[str, _Entry], aliases: dict[str, str]
    ) -> None:
        hint = ""
        if member in group.members[:index]:
            message = "is a member twice"
        elif member in aliases:
            message, hint = "is an alias", f"name it `{aliases[member]}`"
        elif member not in entries:
            message, hint = "no experiment has this name", did_you_mean(member, entries)
        elif entries[member].abstract:
            message = "is abstract and cannot be compared"
        else:
            return
        self._report(Finding(("members", index), member, message, hint), ("groups", name))

    def _references(self, entries: dict[str, _Entry]) -> dict[str, PublishedReference | EarlierReference]:
        found: dict[str, PublishedReference | EarlierReference] = {}
        for name, table in self._tables("references").items():
            diagnosis = diagnose(ReferenceTable, {"reference": table})
            for finding in diagnosis.findings:
                inner = Finding(
                    finding.path[1:], finding.value, finding.message, finding.hint, finding.at_key, finding.missing
                )
                self._report(inner, ("references", name))
            if not isinstance(diagnosis.model, ReferenceTable) or diagnosis.findings:
                continue
            reference = found[name] = diagnosis.model.reference
            if isinstance(reference, EarlierReference) and reference.experiment not in entries:
                hint = did_you_mean(reference.experiment, entries)
                finding = Finding(("experiment",), reference.experiment, "no experiment has this name", hint)
                self._report(finding, ("references", name))
            if isinstance(reference, PublishedReference) and reference.curves:
                sources = references.curve_sources()
                if reference.curves not in sources:
                    message = f"must be one of {', '.join(sources)}"
                    hint = did_you_mean(reference.curves, sources)
                    self._report(Finding(("curves",), reference.curves, message, hint), ("references", name))
        return found


def _alias_owners(tables: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    """Who has which alias, read before anything is validated."""
    lists = ((name, table.get("aliases")) for name, table in tables.items())
    return {alias: name for name, own in lists if isinstance(own, list) for alias in own if isinstance(alias, str)}


# --- one experiment --------------------------------------------------------------------------------------------------


def _heritage(parent: Inherited) -> Inherited:
    """What a child gets: everything except who the parent is."""
    return Inherited(
        {key: value for key, value in parent.values.items() if key not in _NOT_INHERITED},
        {path: origin for path, origin in parent.origins.items() if path[0] not in _NOT_INHERITED},
        {path for path in parent.unsound if not path or path[0] not in _NOT_INHERITED},
    )


def _settle(
    name: str, base: Inherited, fragment: Fragment, collector: Collector, whole: bool
) -> tuple[Experiment | None, Inherited]:
    """Merge, check and judge one experiment. `whole`: required keys must be there and rules must hold."""
    merged = merge(Experiment, base, fragment)
    diagnosis = diagnose(Experiment, merged.values, CONTROLS)
    sound = True
    for finding in diagnosis.findings:
        if finding.missing and (not whole or merged.is_unsound(finding.path)):
            continue
        sound = False
        place = (fragment.place_of_key if finding.at_key or finding.missing else fragment.place_of_value)(finding.path)
        collector.add(Problem(place, finding.message, finding.hint, name, finding.key, plain(finding.value)))
    for finding in diagnosis.findings:
        path = tuple(part for part in finding.path if isinstance(part, str))
        if finding.at_key:
            path = (*path[:-1], finding.meant) if finding.meant else ()
        if path and (whole or not finding.missing):
            merged.unsound.add(path)
    merged.values = diagnosis.values
    if not sound:
        merged.forget_what_is_gone()
    spec = diagnosis.model if isinstance(diagnosis.model, Experiment) else None
    if whole:
        _apply_rules(name, merged, spec, fragment, collector)
    return (spec if sound else None), merged


def _apply_rules(
    name: str, inherited: Inherited, spec: Experiment | None, fragment: Fragment, collector: Collector
) -> None:
    values = fields.values_with_defaults(Experiment, inherited.values)
    values = {key: value for key, value in values.items() if not inherited.is_unsound(tuple(key.split(".")))}
    verdicts: Iterable[rules.Verdict] = rules.judge(values)
    if spec is not None:
        verdicts = [*verdicts, *estimates.judge(spec)]
    for verdict in verdicts:
        origins = {key: inherited.origin(key) for key in (verdict.key, *verdict.also)}
        own = [key for key, at in origins.items() if at.place is not None and at.entry == fragment.entry]
        blamed = own[0] if own else verdict.key
        origin = origins[blamed]
        message = verdict.message if blamed == verdict.key else f"{verdict.key} {verdict.message}"
        hint = verdict.hint
        if origin.entry is not None and origin.entry != name:
            inherited_from = f"inherited from {visible(origin.entry)}"
            hint = f"{hint} ({inherited_from})" if hint else inherited_from
        place = origin.place or fragment.place_of_key(())
        collector.add(Problem(place, message, hint, name, blamed, plain(values.get(blamed)), verdict.severity))
