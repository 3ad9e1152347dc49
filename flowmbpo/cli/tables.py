"""The only presentation code: consoles, tables and JSON. Data goes to stdout, everything said about it to stderr."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flowmbpo.cli import streams

Row = Mapping[str, Any]
Columns = Mapping[str, str | Callable[[Row], object]]
_FIGURE = re.compile(r"–|[-−]?[\d,]+(\.\d+)?(e[-+]\d+)?(:\d\d)*")  # a number, a duration, or nothing

out = Console()
err = Console(stderr=True)


def on_terminal(console: Console) -> bool:
    """Whether a person looks at it. FORCE_COLOR, which makes Rich say so of a pipe, only colours."""
    return console.is_terminal and console.file.isatty()


def say(text: str, style: str = "") -> None:
    """A line on stderr as it is: no markup, no colours of its own, not broken in pieces."""
    err.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def print_json(document: object) -> None:
    """One JSON document on stdout. Non-finite numbers become null: they are not JSON."""
    streams.write_json(json.dumps(_finite(document), indent=2, allow_nan=False, default=str) + "\n")


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def show(document: Sequence[Row], as_json: bool, columns: Columns, title: str = "", right: Iterable[str] = ()) -> None:
    """What a command found: as JSON, or as a table with a row for each of its entries.

    `columns` say for each heading which key of an entry, or what of it, stands there.
    """
    if as_json:
        print_json(document)
        return
    rows = [[what(entry) if callable(what) else entry[what] for what in columns.values()] for entry in document]
    print_table(title, list(columns), rows, right)


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], right: Iterable[str] = ()
) -> None:
    """A table on stdout; columns of figures, and those named in `right`, are right-aligned. On a pipe the full width is
    kept."""
    table = Table(title=title or None, title_justify="left", header_style="bold")
    cells = [[cell(value) for value in row] for row in rows]
    for place, column in enumerate(columns):
        figures = all(_FIGURE.fullmatch(row[place]) for row in cells)
        justify: Literal["right", "left"] = "right" if figures or column in right else "left"
        table.add_column(Text(column), justify=justify, overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))  # names may hold what looks like markup
    console = out if on_terminal(out) else Console(width=max(200, out.width))
    console.print(table)


def cell(value: object) -> str:
    """One value as a person reads it: en dash for nothing, thousands separated, four significant digits."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(map(cell, value))
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)
