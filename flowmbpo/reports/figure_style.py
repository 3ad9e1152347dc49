"""How figures look and how they are saved: PNG, PDF, and SVG that follows a page's light or dark colours.

Matplotlib's global settings are the same before and after, and the user's own do not count; its pyplot is not used.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from html import escape
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from flowmbpo.errors import UserError, WorkFailed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Told apart by most colour-blind readers, in print together with dashes; the page has its own dark variants.
COLOURS = ("#0b62c4", "#c2410c", "#15803d", "#8b2fc9", "#b4124a", "#0e7490", "#8a6100", "#5b5f6b")
INK, MUTED, RULE, PAPER = "#1b1f27", "#6b7280", "#d8dbe2", "#fefefe"
PICTURES = (".png", ".svg", ".pdf")
_METADATA = ("Date", "Creator", "Format", "Type")  # not wanted in a page
_STYLE: Mapping[str, object] = {
    "font.size": 9.5,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "flowmbpo",  # the same figure gives the same bytes
    "text.parse_math": False,  # names may hold a dollar sign
    "figure.constrained_layout.use": True,
}


@contextmanager
def styled() -> Iterator[Callable[..., Figure]]:
    """Our style, and a function (height, width) in inches that makes a figure in it."""
    matplotlib = _matplotlib()
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield lambda height, width=6.2: Figure(figsize=(width, height), dpi=150)


def _matplotlib() -> ModuleType:
    """Matplotlib, imported without the user's settings: it fails when they are wrong."""
    hidden = {name: os.environ.get(name) for name in ("MATPLOTLIBRC", "MPLBACKEND")}
    os.environ["MATPLOTLIBRC"] = os.devnull
    os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    except Exception as error:  # a `matplotlibrc` in the working directory is read all the same
        raise WorkFailed(f"no picture can be drawn, because matplotlib does not start: {error}") from error
    finally:
        for name, value in hidden.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
    return matplotlib


def save(figure: Figure, path: Path) -> Path:
    try:
        with styled():
            figure.savefig(path, facecolor="white")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from None
    return path


def to_svg(figure: Figure, key: str, alt: str) -> str:
    """Inline SVG for a page: colours become CSS variables (--c0.., --ink, ...), `key` makes ids unique."""
    buffer = io.StringIO()
    with styled():
        figure.savefig(buffer, format="svg", transparent=True, metadata=dict.fromkeys(_METADATA))
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    variables = {INK: "ink", MUTED: "muted", RULE: "rule", PAPER: "paper"} | {
        colour: f"c{i}" for i, colour in enumerate(COLOURS)
    }
    text = re.sub(r"#[0-9a-f]{6}", lambda m: f"var(--{variables[m[0]]})" if m[0] in variables else m[0], text)
    text = re.sub(r'\bid="', f'id="{key}-', text)
    text = re.sub(r'((?:xlink:)?href="#|url\(#)', lambda m: m[1] + key + "-", text)
    text = text.replace("'DejaVu Sans'", "inherit")
    opening = re.match(r'<svg[^>]*viewBox="([^"]+)"[^>]*>', text)
    assert opening, "matplotlib writes a viewBox"
    title = escape(alt)
    head = f'<svg viewBox="{opening[1]}" role="img" xmlns="http://www.w3.org/2000/svg" '
    head += f'xmlns:xlink="http://www.w3.org/1999/xlink" aria-labelledby="{key}-title"><title id="{key}-title">{title}'
    return head + "</title>" + text[opening.end() :]
