"""Since when a heartbeat stands still, by the clock of whoever looks: those of two machines are never compared.

What was seen is kept in a file of the user's cache, because each look may be a process of its own. Without a cache that
can be written, only a process that keeps looking notices silence.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from flowmbpo.runs.files import BrokenFile, atomic_file, read_json

_FORGOTTEN_SECONDS = 30 * 86_400.0
_seen: dict[str, tuple[str, float]] = {}  # by run: its heartbeat, and when we saw that first


def silence(run: str, beat: str, now: float) -> float:
    """Seconds for which `run` has shown the heartbeat `beat`, as far as anybody of this user has looked."""
    known = {**_load(), **_seen}
    if known.get(run, ("", 0.0))[0] != beat:
        known[run] = (beat, now)
        _save({name: seen for name, seen in known.items() if now - seen[1] < _FORGOTTEN_SECONDS})
    _seen[run] = known[run]
    return now - known[run][1]


def _file() -> Path:
    return Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")) / "flowmbpo" / "heartbeats.json"


def _load() -> dict[str, tuple[str, float]]:
    with contextlib.suppress(BrokenFile, OSError, ValueError, TypeError, AttributeError):
        return {str(run): (str(beat), float(first)) for run, (beat, first) in read_json(_file()).items()}
    return {}


def _save(known: dict[str, tuple[str, float]]) -> None:
    file = _file()
    if not str(file).startswith("~"):  # a user without a home
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(file) as temporary:
                temporary.write_text(json.dumps(known), encoding="utf-8")
