"""Finds where each key and value of a TOML text stands; `tomllib` parses but forgets positions.

Not a validator: `tomllib` decides what is valid TOML. On a broken text the scan ends where it stops understanding,
which is not before the place where `tomllib` stops. It refuses nesting and dotted keys so deep that a parser would
recurse or take quadratic time on them.
"""

from __future__ import annotations

import bisect
import re
import tomllib
from dataclasses import dataclass

MAX_DEPTH = 32

Path = tuple[str | int, ...]

_BLANK = re.compile(r"[ \t]*")
_SPACE = re.compile(r"(?:[ \t\n]+|#[^\n]*)*")
_BARE_KEY = re.compile(r"[^\s\"'.=\[\]{},#]+")
_SCALAR = re.compile(r"[^,\]}#\n]*")
_STRINGS = (  # possessive, so that an unclosed string costs linear time
    ('"""', re.compile(r'"""(?:[^"\\]++|\\[\s\S]|"(?!""))*+"""(?:"{0,2})')),
    ("'''", re.compile(r"'''(?:[^']++|'(?!''))*+'''(?:'{0,2})")),
    ('"', re.compile(r'"(?:[^"\\\n]++|\\[^\n])*+"')),
    ("'", re.compile(r"'[^'\n]*+'")),
)


class TooDeep(ValueError):
    """The text nests deeper than any registry needs; `offset` says where."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"nested deeper than {MAX_DEPTH} levels")
        self.offset = offset


class _NotToml(Exception):
    """The text is not TOML here."""


@dataclass
class Positions:
    """Offsets (in characters) of keys and values by path; array elements have their index in the path."""

    keys: dict[Path, tuple[int, int]]
    values: dict[Path, tuple[int, int]]
    repeated: tuple[Path, int, int] | None  # path, first and second offset of what is defined twice
    line_starts: list[int]
    unclosed: int | None  # where the innermost list, table or text begins in which the scan got stuck

    def line_column(self, offset: int) -> tuple[int, int]:
        """Line and column, both from 1."""
        line = bisect.bisect_right(self.line_starts, offset)
        return line, offset - self.line_starts[line - 1] + 1


def scan(text: str) -> Positions:
    """Positions of everything in the text, whose line ends must be `\\n`. Raises TooDeep."""
    return _Scanner(text).run()


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.keys: dict[Path, tuple[int, int]] = {}
        self.values: dict[Path, tuple[int, int]] = {}
        self.repeated: tuple[Path, int, int] | None = None
        self.headers: set[Path] = set()
        self.arrays: dict[Path, int] = {}  # arrays of tables: elements so far
        self.open: list[int] = []

    def run(self) -> Positions:
        table: Path = ()
        size = len(self.text)
        while True:
            self.skip(_SPACE)
            if self.at >= size:
                break
            try:
                if self.text[self.at] == "[":
                    table = self.header()
                else:
                    self.pair(table, 0)
            except _NotToml:
                break
        starts = [0]
        starts.extend(match.end() for match in re.finditer("\n", self.text))
        return Positions(self.keys, self.values, self.repeated, starts, self.open[-1] if self.open else None)

    def skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        if match is None:
            return ""
        self.at = match.end()
        return match.group()

    def expect(self, character: str) -> None:
        if not self.text.startswith(character, self.at):
            raise _NotToml
        self.at += len(character)

    def header(self) -> Path:
        start = self.at
        is_array = self.text.startswith("[[", self.at)
        self.at += 2 if is_array else 1
        parts = self.dotted_key()
        self.expect("]]" if is_array else "]")
        path = self.locate((), parts[:-1])
        name, offset, length = parts[-1]
        path = (*path, name)
        if is_array:
            self.arrays[path] = self.arrays.get(path, 0) + 1
            self.keys.setdefault(path, (offset, length))
            path = (*path, self.arrays[path] - 1)
        elif path in self.headers:
            self.repeated = (path, self.keys[path][0], start)
            raise _NotToml
        self.headers.add(path)
        self.keys[path] = (offset, length)
        return path

    def locate(self, path: Path, parts: list[tuple[str, int, int]]) -> Path:
        """The path that dotted parts lead to: through arrays of tables, to their last element."""
        for name, offset, length in parts:
            path = (*path, name)
            self.keys.setdefault(path, (offset, length))
            if path in self.arrays:
                path = (*path, self.arrays[path] - 1)
        return path

    def dotted_key(self) -> list[tuple[str, int, int]]:
        parts: list[tuple[str, int, int]] = []
        while True:
            self.skip(_BLANK)
            start = self.at
            parts.append((self.simple_key(), start, self.at - start))
            if len(parts) > MAX_DEPTH:
                raise TooDeep(start)
            self.skip(_BLANK)
            if not self.text.startswith(".", self.at):
                return parts
            self.at += 1

    def simple_key(self) -> str:
        for quote, pattern in _STRINGS[2:]:
            if self.text.startswith(quote, self.at):
                raw = self.skip(pattern)
                if not raw:
                    raise _NotToml
                return _unescape(raw)
        raw = self.skip(_BARE_KEY)
        if not raw:
            raise _NotToml
        return raw

    def pair(self, table: Path, depth: int) -> None:
        parts = self.dotted_key()
        self.expect("=")
        path = self.locate(table, parts[:-1])
        name, offset, length = parts[-1]
        path = (*path, name)
        if path in self.keys:
            self.repeated = (path, self.keys[path][0], offset)
            raise _NotToml
        self.keys[path] = (offset, length)
        self.skip(_BLANK)
        self.value(path, depth)

    def value(self, path: Path, depth: int) -> None:
        start = self.at
        if depth > MAX_DEPTH:
            raise TooDeep(start)
        character = self.text[start : start + 1]
        if character and character in "[{\"'":
            self.open.append(start)
        if character == "[":
            self.array(path, depth)
        elif character == "{":
            self.inline_table(path, depth)
        elif character == '"' or character == "'":
            self.string()
        else:
            self.at = start + len(self.skip(_SCALAR).rstrip())
            if self.at == start:
                raise _NotToml
            self.open.append(start)
        self.open.pop()
        self.values[path] = (start, self.at - start)

    def string(self) -> None:
        for quote, pattern in _STRINGS:
            if self.text.startswith(quote, self.at):
                if not self.skip(pattern):
                    raise _NotToml
                return

    def array(self, path: Path, depth: int) -> None:
        self.at += 1
        index = 0
        while True:
            self.skip(_SPACE)
            if self.text.startswith("]", self.at):
                self.at += 1
                return
            self.value((*path, index), depth + 1)
            index += 1
            self.skip(_SPACE)
            if not self.text.startswith(("]", ","), self.at):
                raise _NotToml
            if self.text[self.at] == ",":
                self.at += 1

    def inline_table(self, path: Path, depth: int) -> None:
        self.at += 1
        while True:
            self.skip(_SPACE)
            if self.text.startswith("}", self.at):
                self.at += 1
                return
            self.pair(path, depth + 1)
            self.skip(_SPACE)
            if not self.text.startswith(("}", ","), self.at):
                raise _NotToml
            if self.text[self.at] == ",":
                self.at += 1


def _unescape(quoted: str) -> str:
    if "\\" not in quoted or quoted[0] == "'":
        return quoted[1:-1]
    try:
        return str(tomllib.loads(f"key = {quoted}")["key"])
    except tomllib.TOMLDecodeError:
        raise _NotToml from None
