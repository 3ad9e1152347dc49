"""The entries of a run's journal that its store refused: kept, counted, and offered again.

One JSON document a line, with the store's reason. Not here: offering them (`tracking.delivery`).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

from flowmbpo.runs.files import atomic_file
from flowmbpo.runs.journal import Entry, parse_entry

Refusal = tuple[Entry, str]  # and the reason


def read(path: Path) -> list[Entry]:
    """The entries, oldest first; none without the file. There an entry has the key `record`, an older word."""
    return [entry for line in _lines(path) if (entry := parse_entry(json.dumps(line.get("record")).encode()))]


def count(path: Path) -> int:
    return len(_lines(path))


def reasons(path: Path) -> list[str]:
    """Every reason once."""
    return list(dict.fromkeys(str(line.get("reason")) for line in _lines(path)))


def add(path: Path, refused: Sequence[Refusal]) -> None:
    """Keep more of them. On a full disk, which the training thread reports, they are only in the log."""
    if refused:
        with contextlib.suppress(OSError), open(path, "a", encoding="utf-8") as file:
            file.write(_text(refused))


def replace(path: Path, refused: Sequence[Refusal]) -> None:
    """Keep these instead of what is there."""
    if not refused:
        path.unlink(missing_ok=True)
        return
    with contextlib.suppress(OSError), atomic_file(path) as temporary:
        temporary.write_text(_text(refused), encoding="utf-8")


def _text(refused: Sequence[Refusal]) -> str:
    return "".join(
        json.dumps({"reason": reason, "record": {"op": entry.op, **vars(entry)}}) + "\n" for entry, reason in refused
    )


def _lines(path: Path) -> list[dict[str, object]]:
    found = []
    with contextlib.suppress(OSError):
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
    return [line for line in found if isinstance(line, dict)]
