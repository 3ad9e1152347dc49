"""What a rule between keys is: a function of resolved values that says what is wrong with them.

A rule is skipped when one of its keys is missing or was refused already, so a file's other mistakes never hide it. Most
are one line of a table (`requirements`). The rules are in `model_rules` and `training_rules`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal


class Absent(KeyError):
    """A rule asked for a key that has no sound value."""


class Values(Mapping[str, Any]):
    """Resolved values by dotted key."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def __getitem__(self, key: str) -> Any:
        try:
            return self._values[key]
        except KeyError:
            raise Absent(key) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


@dataclass(frozen=True)
class Violation:
    """What a rule says against a key. Of this key and `also`, the one that the experiment itself wrote is blamed."""

    key: str
    message: str
    hint: str = ""
    severity: Literal["error", "warning"] = "error"
    also: tuple[str, ...] = ()


Rule = Callable[[Values], Iterator[Violation]]


def requirements(
    table: Mapping[tuple[str, Any], Mapping[str, tuple[Any, ...]]], severity: Literal["error", "warning"] = "error"
) -> list[Rule]:
    """A rule for each line of `table`: (another key, its value) -> key -> the values allowed there, and the reason.

    With the severity "warning" the key has no effect there, and only its default is as good as none.
    """
    return [
        partial(_require, where, key, allowed, reason, severity)
        for where, keys in table.items()
        for key, (*allowed, reason) in keys.items()
    ]


def _require(
    where: tuple[str, Any],
    key: str,
    allowed: Sequence[Any],
    reason: str,
    severity: Literal["error", "warning"],
    v: Values,
) -> Iterator[Violation]:
    other, value = where
    given = tuple(v[key]) if isinstance(v[key], list) else v[key]
    if v[other] != value or given in allowed:
        return
    *words, last = map(_word, allowed)
    choices = f"{', '.join(words)} or {last}" if words else last
    said, hint = f"must be {choices}", f"use {key.rpartition('.')[2]} = {json.dumps(allowed[0])}, or another {other}"
    if severity == "warning":
        said, hint = "has no effect", "remove the key"
    yield Violation(key, f"{said} where {other} = {_word(value)}: {reason}", hint, severity, also=(other,))


def _word(value: Any) -> str:
    return "empty" if value == () else f'"{value}"' if isinstance(value, str) else str(value)


def sequence_length(v: Values) -> tuple[str, int]:
    """The key that says how many transitions a learnt sequence has, and how many."""
    given = v["train.wm_sequence_length"]
    return ("train.horizon", v["train.horizon"]) if given is None else ("train.wm_sequence_length", given)
