"""The learning curve of one run as a picture, made from the run's own folder: it needs no tracking store."""

from __future__ import annotations

from pathlib import Path

from flowmbpo.reports.plots import learning_curve_picture
from flowmbpo.runs.journal import Create, Metrics, read_entries
from flowmbpo.runs.layout import RunFiles

FILE_NAME = "learning_curve.png"


def picture_of_run(run: Path, folder: Path) -> Path:
    """Draw everything the run in folder `run` has logged so far into `folder`; returns the file.

    Raises:
        OSError: the run has no journal.
        UserError: the picture cannot be written.
    """
    points: dict[str, tuple[list[float], list[float]]] = {}
    title = run.name
    for entry, _ in read_entries(RunFiles(run).journal):
        if isinstance(entry, Create):
            title = entry.name
        elif isinstance(entry, Metrics):
            for metric, value in entry.metrics.items():
                steps, values = points.setdefault(metric, ([], []))
                steps.append(entry.step)
                values.append(value)
    return learning_curve_picture(points, folder / FILE_NAME, title)
