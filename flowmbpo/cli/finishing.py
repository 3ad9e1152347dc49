"""What a finished run gets besides its numbers: the learning curve as a picture and a replay of its best policy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flowmbpo.cli.render import replay_of

if TYPE_CHECKING:
    from flowmbpo.runs.layout import RunFiles


def learning_curve(files: RunFiles, device: str) -> Path:
    """`learning_curve.png` among the run's artifacts."""
    from flowmbpo.reports.run_picture import picture_of_run

    files.artifacts.mkdir(parents=True, exist_ok=True)
    return picture_of_run(files.root, files.artifacts)


PICTURES = {"learning curve": learning_curve, "replay": replay_of}
