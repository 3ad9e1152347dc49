"""`--set key=value` as typed values with a place to point at. What the values may be is the schema's business."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from flowmbpo.spec import document, fields
from flowmbpo.spec.inheritance import Layer
from flowmbpo.spec.problems import OPTION, Collector, Place, Problem, did_you_mean, plain, show
from flowmbpo.spec.schema import Experiment

# Who an experiment is cannot be overridden, only what it does.
_FIXED = ("name", "aliases", "extends", "abstract")
_KEY = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\Z")

Overrides = Mapping[str, object] | Sequence[str]


def parse(overrides: Overrides, collector: Collector) -> Layer:
    """The overrides as a nested table; what cannot be understood goes to the collector."""
    places: dict[tuple[str, ...], tuple[Place, Place]] = {}  # of key and value
    given: dict[tuple[str, ...], object] = {}
    for number, (text, key, value) in enumerate(_pairs(overrides, collector), start=1):
        source = f"{OPTION} {text}"
        at_key = Place(OPTION, number, len(OPTION) + 2, source, max(1, len(key)))
        start = len(OPTION) + 3 + len(key)
        at_value = Place(OPTION, number, start, source, max(1, len(source) - start + 1))
        path = tuple(key.split("."))
        problem = _refusal(key, path, given)
        if problem:
            collector.add(Problem(at_key, problem[0], problem[1], key=key, value=plain(value)))
            continue
        given[path] = value
        places[path] = (at_key, at_value)
    nested: dict[str, Any] = {}
    for path, value in given.items():
        table = nested
        for part in path[:-1]:
            table = table.setdefault(part, {})
        table[path[-1]] = value

    def place(path: tuple[str | int, ...], of_key: bool) -> Place:
        names = tuple(part for part in path if isinstance(part, str))
        for length in range(len(names), 0, -1):
            if names[:length] in places:
                return places[names[:length]][not of_key]
            inside = [both for known, both in places.items() if known[:length] == names[:length]]
            if inside:
                return inside[0][not of_key]
        return Place(OPTION, source=OPTION)

    return Layer(nested, place)


def _pairs(overrides: Overrides, collector: Collector) -> list[tuple[str, str, object]]:
    if isinstance(overrides, Mapping):
        return [(f"{key}={show(value)}", key, value) for key, value in overrides.items()]
    pairs = []
    for number, text in enumerate(overrides, start=1):
        key, equals, value = text.partition("=")
        key = key.strip()
        place = Place(OPTION, number, len(OPTION) + 2, f"{OPTION} {text}", max(1, len(text)))
        if not equals or not _KEY.match(key):
            hint = f"write {OPTION} train.horizon=16"
            collector.add(Problem(place, "must be of the form key=value", hint, key=key, value=text))
        elif not value.strip():
            collector.add(Problem(place, "has no value", f'write {key}="" for an empty text', key=key))
        else:
            pairs.append((text, key, toml_value(value.strip())))
    return pairs


def toml_value(text: str) -> object:
    """The text as a TOML value; what is no TOML value is a text itself, so that bare words need no quotation marks."""
    parsed = document.parse(f"value = {text}".encode("utf-8", "backslashreplace"), OPTION)
    if parsed.problems or set(parsed.data) != {"value"}:
        return text
    return parsed.data["value"]


def _refusal(key: str, path: tuple[str, ...], given: Mapping[tuple[str, ...], object]) -> tuple[str, str] | None:
    if path[0] in _FIXED:
        return f"{path[0]} belongs to the registry and cannot be set here", "write an entry that extends this one"
    for known in given:
        shorter = min(len(known), len(path))
        if known[:shorter] == path[:shorter]:
            other = ".".join(known)
            return ("is given twice" if known == path else f"clashes with {other}"), "give it once"
    if len(path) > 1 and not fields.variants(Experiment, path[0]):
        sections = [name for name in Experiment.model_fields if fields.variants(Experiment, name)]
        if path[0] in Experiment.model_fields:
            return f"{path[0]} is no section", ""
        return f"unknown section `{path[0]}`", did_you_mean(path[0], sections) or f"known: {', '.join(sections)}"
    return None
