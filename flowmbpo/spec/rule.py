"""What a rule between keys is: the key that is to blame, a condition on resolved values, and what is said.

A rule is skipped when a key that it reads is missing or was refused already, so a file's other mistakes never hide it.
The rules are in `model_rules` and `training_rules`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning"]


class Absent(Exception):
    """A rule asked for a key that has no sound value."""


class Values:
    """Resolved values as `v.train.horizon` or `v["train.horizon"]`; `read` are the keys that were asked for."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values
        self.read: dict[str, None] = {}

    def __getitem__(self, key: str) -> Any:
        if key not in self._values:
            raise Absent(key)
        self.read[key] = None
        value = self._values[key]
        return tuple(value) if isinstance(value, list) else value

    def __getattr__(self, section: str) -> Any:
        return _Section(self, section)


class _Section:
    def __init__(self, values: Values, name: str) -> None:
        self._values, self._name = values, name

    def __getattr__(self, key: str) -> Any:
        return self._values[f"{self._name}.{key}"]


@dataclass(frozen=True)
class Violation:
    """What a rule says against a key. Of this key and `also`, the one that the experiment itself wrote is blamed."""

    key: str
    message: str
    hint: str = ""
    severity: Severity = "error"
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rule:
    """`key` is wrong where `broken` says so; whoever wrote another key that it read may be to blame as well.

    `message` and `hint` are filled in with the values, `{v.train.horizon}`, and with the figures that `broken` may
    return as a dict.
    """

    key: str
    broken: Callable[[Values], object]
    message: str
    hint: str = ""
    severity: Severity = "error"

    def judge(self, values: Mapping[str, object]) -> Violation | None:
        """What is wrong with the values, by dotted key. Raises Absent."""
        v = Values(values)
        found = self.broken(v)
        if not found:
            return None
        also = tuple(key for key in v.read if key != self.key)
        figures = found if isinstance(found, dict) else {}
        message, hint = (text.format(v=v, **figures) for text in (self.message, self.hint))
        return Violation(self.key, message, hint, self.severity, also)


Allowed = Mapping[tuple[str, object], Mapping[str, tuple[object, ...]]]


def requirements(table: Allowed, severity: Severity = "error") -> list[Rule]:
    """A rule for each line of `table`: (another key, its value) -> key -> the values allowed there, and the reason.

    With the severity "warning" the key has no effect there, and only its default is as good as none.
    """
    return [
        _requirement(other, value, key, allowed, str(reason), severity)
        for (other, value), keys in table.items()
        for key, (*allowed, reason) in keys.items()
    ]


def _requirement(
    other: str, value: object, key: str, allowed: Sequence[object], reason: str, severity: Severity
) -> Rule:
    *words, last = map(_word, allowed)
    said = f"must be {', '.join(words)} or {last}" if words else f"must be {last}"
    hint = f"use {key.rpartition('.')[2]} = {json.dumps(allowed[0])}, or "
    hint += f"{other} = {json.dumps(not value)}" if isinstance(value, bool) else f"another {other}"
    if severity == "warning":
        said, hint = "has no effect", "remove the key"
    message = f"{said} where {other} = {_word(value)}: {reason}"
    return Rule(key, lambda v: v[other] == value and v[key] not in allowed, message, hint, severity)


def _word(value: object) -> str:
    return "empty" if value == () else json.dumps(value)
