"""Writes what the user says about a run after it was made: MLflow's description, and tags. Reading is `records`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from flowmbpo.errors import UserError
from flowmbpo.tracking.mlflow_client import writing
from flowmbpo.tracking.records import NOTE_TAG, RunRecord
from flowmbpo.tracking.store import Store

_LONGEST = 5000  # characters that every store takes


def add_note(store: Store, run: RunRecord, text: str) -> str:
    """Append a line to the run's description; returns the whole. Raises UserError when it would be too long."""
    note = "\n".join(filter(None, [run.note, text.strip()]))
    if len(note) > _LONGEST:
        raise UserError(f"the notes of {run.run_name} would have {len(note)} characters; allowed are {_LONGEST}")
    _set(store, run, {NOTE_TAG: note})
    return note


def add_tags(store: Store, run: RunRecord, tags: Mapping[str, str]) -> None:
    """Set tags of the user's own. Raises UserError for a name that is not the user's."""
    for key, value in tags.items():
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,99}", key) or key.startswith(("flowmbpo.", "mlflow.")):
            raise UserError(
                f"{key!r} cannot be a tag: use letters, digits and . _ - (at most 100), and not flowmbpo. or mlflow. "
                "at the beginning"
            )
        if len(value) > _LONGEST:
            raise UserError(f"the tag {key} has {len(value)} characters; allowed are {_LONGEST}")
    _set(store, run, tags)


def _set(store: Store, run: RunRecord, tags: Mapping[str, str]) -> None:
    with writing(store) as client:
        for key, value in tags.items():
            client.set_tag(run.mlflow_run_id, key, value)
