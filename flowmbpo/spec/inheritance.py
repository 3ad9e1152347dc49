"""Who inherits what from whom: order of the entries, merging key by key, and the origin of every value.

Knows the shape of sections (a section of another `kind` is replaced, not merged) but judges no value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from flowmbpo.spec import fields
from flowmbpo.spec.fields import Model
from flowmbpo.spec.problems import Place, visible

MAX_ANCESTORS = 16

Path = tuple[str, ...]


@dataclass(frozen=True)
class Origin:
    """Where a value comes from: an entry of the registry, an option, or (without a place) the schema's default."""

    entry: str | None = None
    place: Place | None = None

    @property
    def file(self) -> str | None:
        """The file (or `--set`); None for a default."""
        return self.place.file if self.place else None

    @property
    def line(self) -> int | None:
        """The line in that file, from 1; None for a default."""
        return self.place.line if self.place else None

    def __str__(self) -> str:
        if self.place is None:
            return "default"
        return f"{visible(self.entry)}, line {self.line}" if self.entry is not None else self.place.file


DEFAULT = Origin()


@dataclass(frozen=True)
class Layer:
    """What one entry (or the options of one command) says itself, and where each part of it is written."""

    values: Mapping[str, object]
    place: Callable[[tuple[str | int, ...], bool], Place]  # of the key of a path, or else of its value
    entry: str | None = None


@dataclass
class Inherited:
    """What an entry ends up with. `unsound`: keys whose value was refused, here or in an ancestor; `()` is all."""

    values: dict[str, object]
    origins: dict[Path, Origin]
    unsound: set[Path]

    def origin(self, key: str) -> Origin:
        """The origin of a dotted key; of a table without fixed keys, that of its first value."""
        path = tuple(key.split("."))
        inside = (origin for known, origin in self.origins.items() if known[: len(path)] == path)
        return self.origins.get(path) or next(inside, DEFAULT)

    def without_what_is_gone(self) -> Inherited:
        """Without the origins of values that are not there."""
        there = set(_leaves(self.values))
        self.origins = {path: origin for path, origin in self.origins.items() if path in there}
        return self

    def is_unsound(self, path: tuple[str | int, ...]) -> bool:
        """Whether this key, or a table around it, was refused already."""
        return any(path[:length] in self.unsound for length in range(len(path) + 1))


def ancestry(parents: Mapping[str, str | None]) -> tuple[list[str], list[list[str]], list[str]]:
    """Entries with parents before children; the cycles; entries with more than MAX_ANCESTORS ancestors.

    Members of cycles, and whoever descends from them, come in the order too.
    """
    depth: dict[str, int] = {}
    order: list[str] = []
    cycles: list[list[str]] = []
    too_long: list[str] = []
    for name in parents:
        chain: list[str] = []
        current: str | None = name
        seen: set[str] = set()
        while current is not None and current in parents and current not in depth and current not in seen:
            chain.append(current)
            seen.add(current)
            current = parents[current]
        if current in seen:
            cycles.append(chain[chain.index(str(current)) :])
        for link in reversed(chain):
            parent = parents[link]
            depth[link] = depth.get(parent, 0) + 1 if parent is not None else 0
            order.append(link)
            if depth[link] == MAX_ANCESTORS + 1:
                too_long.append(link)
    return order, cycles, too_long


def _leaves(table: Mapping[str, object], path: Path = ()) -> Iterator[Path]:
    """The paths of all values in nested tables."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key)


def merge(model: Model, base: Inherited, layer: Layer) -> Inherited:
    """The base with the layer's own values on top, table by table."""
    replaced: list[Path] = []
    values = _merge(model, base.values, layer.values, (), replaced)
    own = {path: Origin(layer.entry, layer.place(path, True)) for path in _leaves(layer.values)}
    unsound = {path for path in base.unsound if not any(path[: len(known)] == known for known in replaced)}
    return Inherited(values, base.origins | own, unsound).without_what_is_gone()


def _merge(
    model: Model, base: Mapping[str, object], own: Mapping[str, object], path: Path, replaced: list[Path]
) -> dict[str, object]:
    merged = dict(base)
    for key, value in own.items():
        here, inherited = (*path, key), base.get(key)
        if isinstance(value, dict) and isinstance(inherited, dict) and not _other_kind(model, key, inherited, value):
            inner = fields.section_class(model, key, {**inherited, **value}) or model
            merged[key] = _merge(inner, inherited, value, here, replaced)
        else:
            merged[key] = value
            replaced.append(here)
    return merged


def _other_kind(model: Model, key: str, inherited: Mapping[str, object], own: Mapping[str, object]) -> bool:
    options = fields.variants(model, key)
    if not options or "" in options or "kind" not in own:
        return False
    return bool(own["kind"] != inherited.get("kind", fields.default_kind(model, key)))
