"""What is wrong with a registry, as data: a problem names its place, its culprit and the way out. No printing here."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from flowmbpo.errors import UserError

# Beyond this a file is not a registry with mistakes but something else; a wall of text helps nobody.
MAX_PROBLEMS = 1000
_MAX_CANDIDATES = 200
OPTION = "--set"  # the `file` of places on the command line
_MAX_WORD = 80


@dataclass(frozen=True)
class Place:
    """Where something is written: a file, or an option of the command line. Lines and columns count from 1."""

    file: str
    line: int = 1
    column: int = 1
    source: str = ""  # the text of that line
    width: int = 1  # characters to underline


@dataclass(frozen=True)
class Problem:
    """One mistake (or, as a warning, one doubtful choice) in a registry or in an option."""

    place: Place
    message: str
    hint: str = ""
    experiment: str | None = None
    key: str = ""
    value: object = None
    severity: Literal["error", "warning"] = "error"

    def as_dict(self) -> dict[str, object]:
        """The JSON form that `flowmbpo validate --json` promises."""
        return {
            "file": self.place.file,
            "line": self.place.line,
            "column": self.place.column,
            "experiment": self.experiment,
            "key": self.key,
            "value": self.value if _is_json(self.value) else str(self.value),
            "message": self.message,
            "hint": self.hint,
            "severity": self.severity,
        }

    def subject(self) -> str:
        """`experiment "x", train.horizon = 8`, or as much of it as applies."""
        parts = []
        if self.experiment is not None:
            parts.append(f'experiment "{visible(self.experiment)}"')
        if self.key:
            parts.append(visible(self.key) + (f" = {show(self.value)}" if self.value is not None else ""))
        return ", ".join(parts)

    def __str__(self) -> str:
        place = f"{visible(self.place.file)}:{self.place.line}:{self.place.column}"
        if self.place.file == OPTION:
            place = visible(self.place.source)
        text = ": ".join(part for part in (place, self.subject(), self.message) if part)
        return f"{text}\n  hint: {self.hint}" if self.hint else text


class RegistryError(UserError):
    """A registry, a name or an override is wrong; `problems` holds every mistake that was found."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class TooManyProblems(Exception):
    """Internal: the collector is full and looking further would only take time."""


class Collector:
    """Gathers problems, once per place and message, up to `MAX_PROBLEMS`.

    A mistake that several experiments inherit is one mistake: the first is reported, the others are named in its hint.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[object, ...], tuple[Problem, list[str]]] = {}

    def add(self, problem: Problem) -> None:
        """Keep the problem, or count it as another victim of one already known."""
        place = problem.place
        identity = (place.file, place.line, place.column, problem.key, problem.message, problem.severity)
        known = self._found.get(identity)
        if known is not None:
            if problem.experiment is not None and problem.experiment != known[0].experiment:
                known[1].append(problem.experiment)
            return
        if len(self._found) >= MAX_PROBLEMS:
            raise TooManyProblems
        self._found[identity] = (problem, [])

    def extend(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            self.add(problem)

    def sorted(self, severity: str = "error") -> list[Problem]:
        """The problems of one severity in the order of the file."""
        chosen = [_with_victims(p, also) for p, also in self._found.values() if p.severity == severity]
        return sorted(chosen, key=lambda p: (p.place.line, p.place.column))

    @property
    def full(self) -> bool:
        """Whether the limit was reached, so that more problems may exist than are listed."""
        return len(self._found) >= MAX_PROBLEMS


def _is_json(value: object) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _with_victims(problem: Problem, also: list[str]) -> Problem:
    if not also:
        return problem
    names = ", ".join(visible(name) for name in also[:5]) + (f" and {len(also) - 5} more" if len(also) > 5 else "")
    hint = f"{problem.hint}; it also reaches {names}" if problem.hint else f"it also reaches {names}"
    return replace(problem, hint=hint)


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate that was probably meant, or None. Case and `-` against `_` do not count as differences."""
    pool = {_folded(candidate): candidate for candidate in candidates}
    if not word or len(word) > _MAX_WORD or len(pool) > _MAX_CANDIDATES:
        return None
    found = difflib.get_close_matches(_folded(word), pool, n=1, cutoff=0.6)
    return pool[found[0]] if found else None


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """A hint such as ``did you mean `horizon`?``, or an empty string."""
    match = nearest(word, candidates)
    return f"did you mean `{match}`?" if match is not None else ""


def _folded(word: str) -> str:
    return word.lower().replace("-", "_")


def visible(text: str) -> str:
    """The text without characters that could steer a terminal or cannot be printed."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def plain(value: object) -> object:
    """The value as JSON can hold it: long texts and numbers shortened, dates as text."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**63 else f"a whole number of {value.bit_length()} bits"
    if isinstance(value, str):
        return value if len(value) <= 200 else value[:200] + "…"
    if isinstance(value, list | tuple):
        return [plain(item) for item in value[:16]] + (["…"] if len(value) > 16 else [])
    if isinstance(value, dict):
        return {str(plain(key)): plain(item) for key, item in list(value.items())[:16]}
    return str(value)


def show(value: object) -> str:
    """The value as it would stand in a TOML file, in one short line."""
    value = plain(value)
    if isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, str):
        text = '"' + visible(value) + '"'
    elif isinstance(value, list):
        text = "[" + ", ".join(show(item) for item in value) + "]"
    elif isinstance(value, dict):
        text = "{" + ", ".join(f"{visible(key)} = {show(item)}" for key, item in value.items()) + "}"
    else:
        text = str(value)
    return text if len(text) <= 120 else text[:117] + "…"
