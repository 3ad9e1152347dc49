"""Draws curves with braille characters: each cell of the terminal is 2 by 4 dots. It only turns numbers into text."""

from __future__ import annotations

import math
from collections.abc import Sequence

Point = tuple[float, float]
# Bit of each dot of a braille cell, [row][column].
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


def draw(points: Sequence[Point], width: int, height: int) -> list[str]:
    """Lines of text, `height` of them plus one for the x axis, that show `points` as one connected curve.

    Non-finite values are left out. The y axis is labelled with its ends, the x axis with the last x.
    """
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if not finite:
        return ["(no points yet)"]
    low, high = min(y for _, y in finite), max(y for _, y in finite)
    first, last = min(x for x, _ in finite), max(x for x, _ in finite)
    labels = [_label(high), _label(low)]
    margin = max(map(len, labels))
    columns = max(2, width - margin - 2)
    cells = [[0] * columns for _ in range(height)]
    previous: tuple[int, int] | None = None
    for x, y in finite:
        spot = (
            _scale(x, first, last, 2 * columns - 1),
            4 * height - 1 - _scale(y, low, high, 4 * height - 1),
        )
        for column, row in _segment(previous or spot, spot):
            cells[row // 4][column // 2] |= _DOTS[row % 4][column % 2]
        previous = spot
    lines = []
    for index, cell_row in enumerate(cells):
        label = labels[0] if index == 0 else labels[1] if index == height - 1 else ""
        lines.append(f"{label:>{margin}} │" + "".join(chr(0x2800 + cell) for cell in cell_row).rstrip("\u2800"))
    end = f"{_label(last)} env steps"
    return [*lines, " " * margin + " └" + "─" * max(0, columns - len(end) - 1) + " " + end]


def _scale(value: float, low: float, high: float, steps: int) -> int:
    return round((value - low) / (high - low) * steps) if high > low else 0


def _segment(start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
    """Dots on the straight line between two dots, both included."""
    count = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
    return [
        (round(start[0] + (end[0] - start[0]) * i / count), round(start[1] + (end[1] - start[1]) * i / count))
        for i in range(count + 1)
    ]


def _label(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
