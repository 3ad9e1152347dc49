"""Shows problems of a registry the way compilers do: the line, a caret, what is wrong and the way out."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.text import Text

from flowmbpo.cli import tables
from flowmbpo.spec.problems import MAX_PROBLEMS, OPTION, Place, Problem, visible

_WINDOW = 100  # characters shown of a very long line


def print_problems(problems: Sequence[Problem]) -> None:
    """All problems on stderr, in the order given, and how many there are."""
    for problem in problems:
        tables.err.print(_rendered(problem), soft_wrap=True)
    errors = sum(problem.severity == "error" for problem in problems)
    if errors:
        more = f"; only the first {MAX_PROBLEMS:,} are shown" if errors >= MAX_PROBLEMS else ""
        tables.err.print(Text(f"{errors} {'problem' if errors == 1 else 'problems'}{more}", style="bold"))


def _rendered(problem: Problem) -> Text:
    colour = "red" if problem.severity == "error" else "yellow"
    place = problem.place
    text = Text()
    where = "" if place.file == OPTION else f"{visible(place.file)}:{place.line}:{place.column}: "
    text.append(where, style="bold")
    text.append(f"{problem.severity}: ", style=f"bold {colour}")
    text.append(problem.subject() or "the file")
    text.append("\n")
    if place.source:
        _append_source(text, place, colour)
    text.append(f"  {visible(problem.message)}\n")
    if problem.hint:
        text.append("  hint: ", style="bold")
        text.append(f"{visible(problem.hint)}\n")
    return text


def _append_source(text: Text, place: Place, colour: str) -> None:
    number = "" if place.file == OPTION else str(place.line)
    first = max(0, place.column - 1 - _WINDOW // 2) if len(place.source) > _WINDOW else 0
    start = place.column - 1 - first
    window = place.source.expandtabs(1)[first : first + _WINDOW]
    before, marked = visible(window[:start]), visible(window[start : start + place.width])
    gutter = " " * (len(number) + 2)
    text.append(f"  {number} │ ", style="dim")
    text.append(before + marked + visible(window[start + place.width :]) + "\n")
    text.append(f"{gutter}│ ".rjust(len(number) + 5), style="dim")
    text.append(" " * cell_len(before))
    text.append("^" * max(1, cell_len(marked)) + "\n", style=f"bold {colour}")
