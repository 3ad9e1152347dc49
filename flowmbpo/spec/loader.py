"""One pass over a parsed registry: its experiments, aliases, groups and references, every mistake collected.

Not here: bytes and syntax (`document`), one experiment (`resolution`), looking things up afterwards (`registry`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from flowmbpo.spec import groups, references
from flowmbpo.spec.document import Document
from flowmbpo.spec.groups import Group
from flowmbpo.spec.identity import identity
from flowmbpo.spec.inheritance import Inherited, Layer, ancestry
from flowmbpo.spec.problems import Collector, Problem, did_you_mean, plain
from flowmbpo.spec.references import EarlierReference, PublishedReference, ReferenceTable
from flowmbpo.spec.resolution import ENTRY_KEYS, Entry, inheritable, resolve
from flowmbpo.spec.table_check import Finding, check_table

TOP_LEVEL = ("experiments", "groups", "references")
MAX_ENTRIES = 1000  # of each of these tables


@dataclass
class Loaded:
    """What a file holds, in its order; whether it is valid, the collector knows."""

    entries: dict[str, Entry]
    aliases: dict[str, str]
    groups: dict[str, Group]
    references: dict[str, PublishedReference | EarlierReference]


class Loader:
    """One pass over a parsed file; every problem goes to the collector."""

    def __init__(self, text: Document, collector: Collector) -> None:
        self.text = text
        self.collector = collector
        self.complete = not text.problems  # else keys may only seem to be missing
        self.entries: dict[str, Entry] = {}
        self.aliases: dict[str, str] = {}

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
        self._read_entries(tables)
        self._read_aliases()
        in_order = {name: self.entries[name] for name in tables if name in self.entries}
        return Loaded(in_order, self.aliases, self._groups(), self._references())

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
                self._report(finding, (section, name))
        return tables

    def _report(self, finding: Finding, base: tuple[str, ...]) -> None:
        """`base` is the table that the finding is about."""
        path = (*base, *finding.path)
        place = self.text.place(path, finding.of_key)
        experiment = base[1] if base[1:] and base[0] == "experiments" else None
        key = finding.key if experiment is not None else ".".join(part for part in path if isinstance(part, str))
        self.collector.add(Problem(place, finding.message, finding.hint, experiment, key, plain(finding.value)))

    # --- experiments

    def _read_entries(self, tables: dict[str, dict[str, object]]) -> None:
        broken: set[str] = set()
        parents = {name: self._parent(name, tables, broken) for name in tables}
        order, cycles, too_long = ancestry(parents)
        for cycle in cycles:
            first = min(cycle, key=list(tables).index) if len(cycle) < 100 else cycle[0]
            turn = cycle[cycle.index(first) :] + cycle[: cycle.index(first)]
            chain = " → ".join([*turn[:10], *(["…"] if len(turn) > 10 else []), first])
            message = f"is a circle: {chain}"
            finding = Finding(("extends",), parents[first], message, "one of them must extend none of the others")
            self._report(finding, ("experiments", first))
            broken.update(cycle)
        for name in too_long:
            message = "has too many ancestors; 16 are allowed"
            self._report(Finding(("extends",), parents[name], message), ("experiments", name))
            broken.add(name)
        for name in order:
            parent = parents[name]
            base = Inherited({}, {}, set())
            if name in broken:
                base.unsound.add(())
            elif parent is not None:
                base = inheritable(self.entries[parent].inherited)
            self.entries[name] = self._entry(name, tables[name], base)
        if self.entries and all(entry.abstract for entry in self.entries.values()) and self.complete:
            finding = Finding((), None, "all experiments are abstract: none can be run", at_key=True)
            self._report(finding, ("experiments",))

    def _parent(self, name: str, tables: Mapping[str, dict[str, object]], broken: set[str]) -> str | None:
        parent = tables[name].get("extends")
        if parent is None:
            return None
        if isinstance(parent, str) and parent in tables:
            return parent
        broken.add(name)
        if isinstance(parent, str):
            message, hint = "no experiment has this name", did_you_mean(parent, tables)
            if owner := _alias_owners(tables).get(parent):
                message, hint = "is an alias", f"extend `{owner}` by its name"
        else:
            message, hint = "must be the name of one experiment", "there is one parent, written in quotation marks"
        self._report(Finding(("extends",), parent, message, hint), ("experiments", name))
        return None

    def _entry(self, name: str, table: dict[str, object], base: Inherited) -> Entry:
        where = ("experiments", name)
        abstract = table.get("abstract", False)
        if not isinstance(abstract, bool):
            message = "must be true or false (an abstract entry exists only to be extended)"
            self._report(Finding(("abstract",), abstract, message), where)
            abstract = False
        if "name" in table:
            message, hint = "the name of an experiment is that of its table", f"rename [experiments.{name}] instead"
            self._report(Finding(("name",), table["name"], message, hint, at_key=True), where)
        if abstract and table.get("aliases"):
            message = "an abstract entry cannot be run and needs no aliases"
            self._report(Finding(("aliases",), table["aliases"], message), where)
        own = {key: value for key, value in table.items() if key not in ENTRY_KEYS} | {"name": name}
        layer = Layer(own, lambda path, of_key: self.text.place((*where, *path), of_key), name)
        whole = not abstract and self.complete
        spec, inherited = resolve(name, base, layer, self.collector, whole)
        return Entry(name, inherited, layer, abstract, None if abstract else spec)

    def _read_aliases(self) -> None:
        for name, entry in self.entries.items():
            own = entry.inherited.values.get("aliases", ())
            for index, alias in enumerate(own if isinstance(own, list | tuple) else ()):
                if alias in self.entries or alias in self.aliases:
                    other = "an experiment of this name"
                    owner = other if alias in self.entries else f"an alias of {self.aliases[alias]}"
                    finding = Finding(("aliases", index), alias, f'"{alias}" is {owner} already', "choose another")
                    self._report(finding, ("experiments", name))
                else:
                    self.aliases[alias] = name

    # --- comparison groups and references

    def _groups(self) -> dict[str, Group]:
        found: dict[str, Group] = {}
        identities = {name: identity(entry.spec) for name, entry in self.entries.items() if entry.spec is not None}
        for name, table in self._tables("groups").items():
            checked = check_table(Group, table)
            for finding in checked.findings:
                self._report(finding, ("groups", name))
            if not isinstance(checked.model, Group) or checked.findings:
                continue
            group = found[name] = checked.model
            for index, member in enumerate(group.members):
                self._check_member(name, index, member, group)
            for index, key, hint in groups.unknown_keys(group):
                self._report(Finding(("varies", index), key, "no experiment has this key", hint), ("groups", name))
            for difference in groups.forbidden_differences(group, identities):
                origin = self.entries[difference.member].inherited.origin(difference.key)
                if origin.place is None:  # then the first member is the one that says something about this key
                    origin = self.entries[difference.reference].inherited.origin(difference.key)
                place = origin.place or self.text.place(("groups", name))
                hint = f'make them equal, or add "{difference.key}" to groups.{name}.varies'
                message = f"must be the same in all of the group {name}: {difference.message}"
                value = plain(difference.value)
                self.collector.add(Problem(place, message, hint, difference.member, difference.key, value))
        return found

    def _check_member(self, name: str, index: int, member: str, group: Group) -> None:
        hint = ""
        if member in group.members[:index]:
            message = "is a member twice"
        elif member in self.aliases:
            message, hint = "is an alias", f"name it `{self.aliases[member]}`"
        elif member not in self.entries:
            message, hint = "no experiment has this name", did_you_mean(member, self.entries)
        elif self.entries[member].abstract:
            message = "is abstract and cannot be compared"
        else:
            return
        self._report(Finding(("members", index), member, message, hint), ("groups", name))

    def _references(self) -> dict[str, PublishedReference | EarlierReference]:
        found: dict[str, PublishedReference | EarlierReference] = {}
        for name, table in self._tables("references").items():
            checked = check_table(ReferenceTable, {"reference": table})
            for finding in checked.findings:
                inner = replace(finding, path=finding.path[1:])
                self._report(inner, ("references", name))
            if not isinstance(checked.model, ReferenceTable) or checked.findings:
                continue
            reference = found[name] = checked.model.reference
            if isinstance(reference, EarlierReference) and reference.experiment not in self.entries:
                hint = did_you_mean(reference.experiment, self.entries)
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
