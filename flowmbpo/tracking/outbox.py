"""Keeps files of a run for delivery, safe from what happens to the originals. Delivering them is `delivery`."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from flowmbpo.errors import WorkFailed
from flowmbpo.runs.layout import RunFiles


class Outbox:
    """Folders that wait for upload. Each is named, in the journal, relative to the run's `tracking/`."""

    def __init__(self, files: RunFiles) -> None:
        self._files = files

    def keep(self, source: Path) -> str:
        """Keep a file, or those of a flat folder, by hard links: no copy. Raises WorkFailed where it cannot."""
        place = self._new()
        try:
            for file in [source] if source.is_file() else sorted(p for p in source.iterdir() if p.is_file()):
                _link(file, place / file.name)
        except OSError as error:
            raise WorkFailed(f"{source} cannot be kept for upload: {error.strerror}") from None
        return self._relative(place)

    def keep_text(self, name: str, text: str) -> str:
        """Keep `text` as a file. Raises WorkFailed where it cannot be written."""
        place = self._new()
        try:
            (place / name).write_text(text, encoding="utf-8", errors="replace")
        except OSError as error:
            raise WorkFailed(f"{place} cannot be written: {error.strerror}") from None
        return self._relative(place)

    def _new(self) -> Path:
        place = self._files.outbox / uuid.uuid4().hex
        try:
            place.mkdir(parents=True)
        except OSError as error:
            raise WorkFailed(f"{place} cannot be made: {error.strerror}") from None
        return place

    def _relative(self, place: Path) -> str:
        return str(place.relative_to(self._files.tracking))


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(source, target)
