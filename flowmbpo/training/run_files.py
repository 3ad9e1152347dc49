"""Owns every file name that a run writes; nothing here reads or writes their contents."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from flowmbpo.errors import UserError

RUNS = Path("runs")
_EPOCH = re.compile(r"epoch-(\d{6,})")


@dataclass(frozen=True)
class RunFiles:
    """The folder of one run: `runs/<run_id>/`."""

    root: Path

    @classmethod
    def of(cls, run_id: str, base: Path = RUNS) -> RunFiles:
        """The folder of `run_id`. An id is a plain name: it can never point outside `base`."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", run_id) or ".." in run_id:
            raise UserError(f"{run_id!r} is not a run id; `flowmbpo runs` lists them")
        return cls(base / run_id)

    @property
    def checkpoints(self) -> Path:
        """Deployable checkpoints, one folder per kept epoch."""
        return self.root / "checkpoints"

    @property
    def resume(self) -> Path:
        """Resumable states: everything that bit-exact continuation needs; only the newest is kept."""
        return self.root / "resume"

    @property
    def best(self) -> Path:
        """Names the checkpoint with the highest evaluated R."""
        return self.root / "best.json"

    @property
    def artifacts(self) -> Path:
        """Pictures and pages made at the end of the run, before they are sent to the tracking store."""
        return self.root / "artifacts"

    def checkpoint(self, epoch: int) -> Path:
        return self.checkpoints / epoch_folder(epoch)

    def checkpoint_epochs(self) -> list[int]:
        """Epochs of the complete checkpoint folders, ascending."""
        return _epochs(self.checkpoints)

    def resume_epochs(self) -> list[int]:
        """Epochs of the complete resumable states, ascending."""
        return _epochs(self.resume)


def epoch_folder(epoch: int) -> str:
    """Folder name of an epoch; sorts like the number."""
    return f"epoch-{epoch:06d}"


def _epochs(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    return sorted(int(m.group(1)) for entry in folder.iterdir() if (m := _EPOCH.fullmatch(entry.name)))
