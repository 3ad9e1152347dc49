"""A registry file as bytes become data with places: reading it safely, its encoding, its TOML syntax.

Not here: what the data mean (`registry`). object bytes and any path end in a document or in problems, in bounded time.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowmbpo.spec import toml_positions
from flowmbpo.spec.problems import Place, Problem, RegistryError
from flowmbpo.spec.toml_positions import Positions

MAX_BYTES = 500_000
_MAX_SYNTAX_PROBLEMS = 10
_NAME_A_FILE = "name a TOML file, for instance with --registry experiments.toml"
_AT_LINE = re.compile(r"^(?P<what>.*) \(at line (?P<line>\d+), column (?P<column>\d+)\)$", re.DOTALL)
_LEADING_ZERO = re.compile(r"0\d+")
_LONG_NUMBER = re.compile(r"[0-9_]{4300,}")


@dataclass
class Document:
    """Parsed TOML with the place of everything in it. `problems`: mistakes of syntax; `data`: what could be read."""

    file: str
    data: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    positions: Positions | None = None
    problems: list[Problem] = field(default_factory=list)

    def place(self, path: toml_positions.Path, of_key: bool = True) -> Place:
        """Where the key is written, or its value, or the nearest thing around it."""
        if self.positions is not None:
            keys, values = self.positions.keys, self.positions.values
            first, second = (keys, values) if of_key else (values, keys)
            for length in range(len(path), 0, -1):
                if found := first.get(path[:length]) or second.get(path[:length]):
                    return self.at(*self.positions.line_column(found[0]), found[1])
        return self.at(1, 1)

    def at(self, line: int, column: int, width: int = 1) -> Place:
        source = self.lines[line - 1] if 0 < line <= len(self.lines) else ""
        return Place(self.file, line, column, source, max(1, min(width, len(source) - column + 1)))


def read(path: Path) -> bytes:
    """The bytes of a regular file of at most MAX_BYTES. Raises RegistryError for anything else; never blocks."""

    def refuse(message: str, hint: str = "") -> RegistryError:
        return RegistryError([Problem(Place(str(path)), message, hint)])

    try:
        # Without O_NONBLOCK the opening of a pipe would wait for a writer that may never come.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as file:
            regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            content = file.read(MAX_BYTES + 1) if regular else b""
    except FileNotFoundError:
        if path.is_symlink():
            raise refuse(f"a link to {os.readlink(path)}, which does not exist", "repair or remove the link") from None
        raise refuse("no such file", "name a registry with --registry PATH, or work in the folder of yours") from None
    except IsADirectoryError:
        inside = path / "experiments.toml"
        hint = f"did you mean {inside}?" if inside.is_file() else _NAME_A_FILE
        raise refuse("this is a directory", hint) from None
    except (OSError, ValueError) as error:
        raise refuse(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not regular:
        raise refuse("not a regular file", _NAME_A_FILE)
    if len(content) > MAX_BYTES:
        raise refuse(f"larger than {MAX_BYTES:,} bytes, so probably not a registry")
    return content


def parse(content: bytes, file: str) -> Document:
    """Data and places of the bytes of a registry; mistakes of encoding and syntax are in its `problems`."""
    document = Document(file)
    text = _decode(content, document)
    if text is None:
        return document
    document.lines = text.split("\n")
    last_line = 0
    while len(document.problems) < _MAX_SYNTAX_PROBLEMS:
        noticed, problem = _try_parse(text, document)
        if problem is None:
            return document
        # A mistake is often confined to its line: read on without it, so that one look shows all mistakes.
        # A second one before the place where the first was noticed means that the structure is broken: stop there.
        if noticed <= last_line:
            break
        document.problems.append(problem)
        lines = text.split("\n")
        culprit = problem.place.line
        if lines[culprit - 1].strip()[:1] in ("", "["):  # without its header a section's keys would go astray
            break
        lines[culprit - 1] = ""
        text = "\n".join(lines)
        last_line = noticed
    document.data = {}
    document.positions = None
    return document


def _decode(content: bytes, document: Document) -> str | None:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        document.problems.append(
            Problem(Place(document.file), "the file is UTF-16", "save it as UTF-8, which TOML demands")
        )
        return None
    content = content.removeprefix(b"\xef\xbb\xbf")  # Windows editors write this mark
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line, column = _end_of(content[: error.start].decode("utf-8"))
        document.lines = content.decode("utf-8", "backslashreplace").split("\n")
        document.problems.append(
            Problem(
                document.at(line, column),
                f"byte 0x{content[error.start]:02x} is not UTF-8",
                "save the file as UTF-8, which TOML demands",
            )
        )
        return None
    return text.replace("\r\n", "\n")


def _try_parse(text: str, document: Document) -> tuple[int, Problem | None]:
    """Fill the document, or say on which line it was noticed that the text is not TOML, and what is wrong where."""
    try:
        document.positions = toml_positions.scan(text)
        document.data = tomllib.loads(text)
    except toml_positions.TooDeep as error:
        line, column = _end_of(text[: error.offset])
        hint = "a registry needs no more than experiments, a section and its keys"
        return line, Problem(document.at(line, column), str(error), hint)
    except tomllib.TOMLDecodeError as error:
        return _syntax_problem(str(error), text, document)
    except ValueError as error:  # a whole number of thousands of digits
        match = _LONG_NUMBER.search(text)
        line, column = _end_of(text[: match.start()] if match else "")
        return line, Problem(document.at(line, column), "a number of thousands of digits", str(error)[:80])
    except RecursionError:
        return 1, Problem(document.at(1, 1), "nested too deeply to be read")
    return 0, None


def _syntax_problem(message: str, text: str, document: Document) -> tuple[int, Problem]:
    match = _AT_LINE.match(message)
    if match:
        line, column, what = int(match["line"]), int(match["column"]), match["what"]
    else:
        line, column = _end_of(text)
        what = message.removesuffix(" (at end of document)") + ": the text ends too early"
    positions = document.positions
    if positions is not None and positions.repeated is not None:
        path, first, second = positions.repeated
        second_line, second_column = positions.line_column(second)
        if not match or second_line <= line:
            place = document.at(second_line, second_column, len(str(path[-1])))
            said = f"defined twice: first on line {positions.line_column(first)[0]}"
            return second_line, Problem(place, said, "keep one of the two", *_owner(path))
    message = f"not valid TOML: {what[:1].lower()}{what[1:]}"
    if positions is not None and positions.unclosed is not None:
        opened, opened_column = positions.line_column(positions.unclosed)
        if opened < line:
            place = document.at(opened, opened_column)
            return line, Problem(place, f"{message} (noticed on line {line})", "what begins here is not closed")
    # TOML reads the first zero as a number and stumbles over what follows.
    begin = max(0, column - 2)
    if zeros := _LEADING_ZERO.match(text.split("\n")[line - 1], begin):
        meant = zeros[0].lstrip("0") or "0"
        return line, Problem(
            document.at(line, begin + 1, len(zeros[0])), f"not valid TOML: {zeros[0]}", f"write {meant}"
        )
    return line, Problem(document.at(line, column), message, _syntax_hint(what))


def _end_of(text: str) -> tuple[int, int]:
    """Line and column, from 1, of what would follow the text."""
    return text.count("\n") + 1, len(text) - text.rfind("\n")


def _owner(path: toml_positions.Path) -> tuple[str | None, str]:
    """The experiment and the key that a path is about."""
    parts = [str(part) for part in path]
    if parts[0] == "experiments" and len(parts) > 1:
        return parts[1], ".".join(parts[2:])
    return None, ".".join(parts)


def _syntax_hint(what: str) -> str:
    if "Invalid value" in what:
        return 'texts need quotation marks ("linear"); true and false are written small; numbers need no quotes'
    if "Expected '='" in what or "Invalid statement" in what:
        return "each line is [section], key = value, or # comment; names with other characters need quotation marks"
    return "close the list with ]" if "array" in what else ""
