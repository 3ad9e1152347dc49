"""What a finished run gets besides its numbers: the learning curve as a picture and a replay of its best policy.

Neither is worth a run: what cannot be made is told and left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flowmbpo.cli import tables
from flowmbpo.cli.render import replay_of
from flowmbpo.errors import UserError, WorkFailed

if TYPE_CHECKING:
    from flowmbpo.runs.layout import RunFiles


def pictures(files: RunFiles, device: str) -> list[Path]:
    """`learning_curve.png` and `replay.html` among the run's artifacts."""
    from flowmbpo.reports.run_picture import picture_of_run

    made = []
    try:
        files.artifacts.mkdir(parents=True, exist_ok=True)
        made.append(picture_of_run(files.root, files.artifacts))
    except (UserError, WorkFailed, OSError, ValueError) as error:
        tables.err.print(f"warning: no learning curve: {error}", markup=False, highlight=False, soft_wrap=True)
    return made + replay_of(files, device)
