"""Keeps files of a run for delivery, safe from what happens to the originals. Delivering them is `delivery`."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from flowmbpo.errors import WorkFailed
from flowmbpo.runs.layout import RunFiles


def keep(files: RunFiles, source: Path) -> str:
    """Keep a file, or those of a flat folder, by hard links: no copy. Returns where, relative to the run's `tracking/`.
    Raises WorkFailed where it cannot."""
    place = _new(files)
    try:
        for file in [source] if source.is_file() else sorted(p for p in source.iterdir() if p.is_file()):
            _link(file, place / file.name)
    except OSError as error:
        raise WorkFailed(f"{source} cannot be kept for upload: {error.strerror}") from None
    return str(place.relative_to(files.tracking))


def keep_text(files: RunFiles, name: str, text: str) -> str:
    """Keep `text` as a file; see `keep`."""
    place = _new(files)
    try:
        (place / name).write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise WorkFailed(f"{place} cannot be written: {error.strerror}") from None
    return str(place.relative_to(files.tracking))


def _new(files: RunFiles) -> Path:
    place = files.outbox / uuid.uuid4().hex
    try:
        place.mkdir(parents=True)
    except OSError as error:
        raise WorkFailed(f"{place} cannot be made: {error.strerror}") from None
    return place


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(source, target)
