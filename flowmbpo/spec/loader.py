"""One pass over a parsed registry: its experiments, aliases, groups and references, every mistake collected.

Not here: bytes and syntax (`document`), one experiment (`resolution`), looking things up afterwards (`registry`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from flowmbpo.spec import groups, references
from flowmbpo.spec.diagnosis import Finding, diagnose
from flowmbpo.spec.document import Document
from flowmbpo.spec.groups import Group
from flowmbpo.spec.identity import identity
from flowmbpo.spec.inheritance import Inherited, Layer, ancestry
from flowmbpo.spec.problems import Collector, Problem, did_you_mean, plain
from flowmbpo.spec.references import EarlierReference, PublishedReference, ReferenceTable
from flowmbpo.spec.resolution import ENTRY_KEYS, Entry, inheritable, resolve
from flowmbpo.spec.schema import Experiment

TOP_LEVEL = ("experiments", "groups", "references")
MAX_ENTRIES = 1000  # of each of these tables


@dataclass
class Loaded:
    """What a file holds, in its order; whether it is valid, the collector knows."""

    entries: dict[str, Entry]
    aliases: dict[str, str]
    groups: dict[str, Group] = field(default_factory=dict)
    references: dict[str, PublishedReference | EarlierReference] = field(default_factory=dict)


class Loader:
    """One pass over a parsed file; every problem goes to the collector."""

    def __init__(self, text: Document, collector: Collector) -> None:
        self.text = text
        self.collector = collector
        self.complete = not text.problems  # else keys may only seem to be missing

    def load(self) -> Loaded:
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
        return Loaded(in_order, aliases, found_groups, found_references)

    def _tables(self, section: str) -> dict[str, dict[str, object]]:
        """The tables of a top-level section; anything else in it is a problem."""
        value = self.text.data.get(section, {})
        if not isinstance(value, dict):
            self._report(Finding((section,), value, f"must be a table of tables [{section}.NAME]"), ())
            return {}
        tables: dict[str, dict[str, object]] = {}
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

    def _entries(self, tables: dict[str, dict[str, object]]) -> dict[str, Entry]:
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
        entries: dict[str, Entry] = {}
        for name in order:
            parent = parents[name]
            base = Inherited({}, {}, set())
            if name in broken:
                base.unsound.add(())
            elif parent is not None:
                base = inheritable(entries[parent].inherited)
            entries[name] = self._entry(name, tables[name], base)
        if entries and all(entry.abstract for entry in entries.values()) and self.complete:
            finding = Finding((), None, "all experiments are abstract: none can be run", at_key=True)
            self._report(finding, ("experiments",))
        return entries

    def _parent(
        self,
        name: str,
        table: dict[str, object],
        tables: Mapping[str, object],
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

    def _entry(self, name: str, table: dict[str, object], base: Inherited) -> Entry:
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
        own = {key: value for key, value in table.items() if key not in ENTRY_KEYS} | {"name": name}
        layer = Layer(
            own, lambda path: self.text.key((*where, *path)), lambda path: self.text.value((*where, *path)), name
        )
        whole = not abstract and self.complete
        spec, inherited = resolve(name, base, layer, self.collector, whole)
        return Entry(name, inherited, layer, abstract, None if abstract else spec)

    def _aliases(self, entries: dict[str, Entry]) -> dict[str, str]:
        aliases: dict[str, str] = {}
        for name, entry in entries.items():
            own = entry.inherited.values.get("aliases", ())
            for index, alias in enumerate(own if isinstance(own, list | tuple) else ()):
                if alias in entries or alias in aliases:
                    owner = "an experiment of this name" if alias in entries else f"an alias of {aliases[alias]}"
                    finding = Finding(("aliases", index), alias, f'"{alias}" is {owner} already', "choose another")
                    self._report(finding, ("experiments", name), name)
                else:
                    aliases[alias] = name
        return aliases

    # --- comparison groups and references

    def _groups(
        self, entries: dict[str, Entry], specs: dict[str, Experiment], aliases: dict[str, str]
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
        self, name: str, index: int, member: str, group: Group, entries: dict[str, Entry], aliases: dict[str, str]
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

    def _references(self, entries: dict[str, Entry]) -> dict[str, PublishedReference | EarlierReference]:
        found: dict[str, PublishedReference | EarlierReference] = {}
        for name, table in self._tables("references").items():
            diagnosis = diagnose(ReferenceTable, {"reference": table})
            for finding in diagnosis.findings:
                inner = replace(finding, path=finding.path[1:])
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


def _alias_owners(tables: Mapping[str, dict[str, object]]) -> dict[str, str]:
    """Who has which alias, read before anything is validated."""
    lists = ((name, table.get("aliases")) for name, table in tables.items())
    return {alias: name for name, own in lists if isinstance(own, list) for alias in own if isinstance(alias, str)}
