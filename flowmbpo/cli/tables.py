"""The only presentation code: consoles, tables and JSON. Data goes to stdout, everything said about it to stderr."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flowmbpo.cli import streams

out = Console()
err = Console(stderr=True)


def on_terminal(console: Console) -> bool:
    """Whether a person looks at it. FORCE_COLOR, which makes Rich say so of a pipe, only colours."""
    return console.is_terminal and console.file.isatty()


def say(text: str, style: str = "") -> None:
    """A line on stderr as it is: no markup, no colours of its own, not broken in pieces."""
    err.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def print_json(document: Any) -> None:
    """One JSON document on stdout. Non-finite numbers become null: they are not JSON."""
    streams.write_json(json.dumps(_finite(document), indent=2, allow_nan=False, default=str) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], right: Iterable[str] = ()) -> None:
    """A table on stdout; columns named in `right` are right-aligned. On a pipe the full width is kept."""
    table = Table(title=title or None, title_justify="left", header_style="bold")
    numeric = set(right)
    for column in columns:
        table.add_column(Text(column), justify="right" if column in numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell(value)) for value in row))  # names may hold what looks like markup
    console = out if on_terminal(out) else Console(width=max(200, out.width))
    console.print(table)


def cell(value: Any) -> str:
    """One value as a person reads it: en dash for nothing, thousands separated, four significant digits."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)
