"""The learning curve of one run as a picture, made from the run's own folder: it needs no tracking store."""

from __future__ import annotations

from pathlib import Path

from flowmbpo.reports.plots import learning_curve_picture
from flowmbpo.runs.journal import read_records
from flowmbpo.tracking.run_tracker import TRACKING_FOLDER

FILE_NAME = "learning_curve.png"


def picture_of_run(run: Path, folder: Path) -> Path:
    """Draw everything the run in folder `run` has logged so far into `folder`; returns the file.

    Raises:
        OSError: the run has no journal.
        UserError: the picture cannot be written.
    """
    points: dict[str, tuple[list[float], list[float]]] = {}
    title = run.name
    for record, _ in read_records(run / TRACKING_FOLDER / "journal.jsonl"):
        if record["op"] == "create":
            title = record["name"]
        elif record["op"] == "metrics":
            for metric, value in record["metrics"].items():
                steps, values = points.setdefault(metric, ([], []))
                steps.append(record["step"])
                values.append(value)
    return learning_curve_picture(points, folder / FILE_NAME, title)
