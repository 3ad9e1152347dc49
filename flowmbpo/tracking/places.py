"""Where a store's files are now: a working folder can be moved and copied, and what it holds names places absolutely.

What lies beside the store comes first: `runs/` with the folders of runs, `mlartifacts/` with what was uploaded. Not
here: reading and writing either.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from flowmbpo.errors import UserError
from flowmbpo.runs.journal import Create, first_entry
from flowmbpo.runs.layout import RUNS, RunFiles
from flowmbpo.runs.lock import DIRECTORY_TAG, is_dead
from flowmbpo.tracking.reader import Reader
from flowmbpo.tracking.records import CheckpointRecord, RunRecord
from flowmbpo.tracking.store import ARTIFACTS, Store, resolve_store, sqlite_store

_LOCATIONS = (("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location"))


def run_folder(store: Store, run_id: str, said: str = "") -> RunFiles | None:
    """The folder of a run, if it is on this machine: beside the store, in the working directory, or where it `said`."""
    beside = [store.sqlite.parent / RUNS] if store.sqlite else []
    places = [*(RunFiles(base / run_id) for base in (*beside, RUNS)), *([RunFiles(Path(said))] if said else [])]
    return next((files for files in places if files.root.is_dir()), None)


def checkpoint_files(store: Store, found: CheckpointRecord) -> Path | None:
    """The folder of a checkpoint as the run wrote it, if it is on this machine."""
    files = run_folder(store, found.run_id)
    places = [files.checkpoints / found.name] if files else []
    places += [Path(found.path)] if found.path else []
    return next((place for place in places if place.is_dir()), None)


def runs_as_they_are(reader: Reader) -> list[RunRecord]:
    """All runs; one that claims to be RUNNING and has no process any more is KILLED, whether the store can be told so
    or not."""
    return [replace(run, status="KILLED") if has_no_process(reader.store, run) else run for run in reader.runs()]


def has_no_process(store: Store, run: RunRecord) -> bool:
    """Whether the run claims to be RUNNING but nothing runs."""
    if run.status != "RUNNING":
        return False
    files = run_folder(store, run.run_id, run.tags.get(DIRECTORY_TAG, ""))
    return is_dead(run.tags, files.root if files else None)


def store_of(files: RunFiles, create: Create) -> Store:
    """The store that a run delivers to: the one it was started with, in the place to which it was moved with the run.

    Raises:
        UserError: it is not known, or a file that is not there any more.
    """
    if not create.store:
        raise UserError("the run's store has a password in its URI, which is not kept; give --tracking-uri")
    then, now = Path(create.tags.get(DIRECTORY_TAG, "")).parent, files.root.absolute().parent.parent
    store = moved_store(create.store, then, now)
    if store.sqlite and then != now and not store.sqlite.exists():
        raise UserError(f"its store {store} is not there any more; name it with --tracking-uri")
    return store


def store_names(files: RunFiles, store: Store) -> tuple[str, ...]:
    """What a run's cursor may call `store`: a file that was moved together with the run has its earlier name too."""
    create = first_entry(files.journal)
    with suppress(UserError):
        if create and str(store_of(files, create)) == str(store):
            return (str(store), str(resolve_store(create.store)))
    return (str(store),)


def moved_store(uri: str, then: Path, now: Path) -> Store:
    """The store that `uri` meant while the working directory `now` was `then`: one that lay in it went along."""
    store = resolve_store(uri)
    if store.sqlite and then != now and store.sqlite.is_relative_to(then):
        return sqlite_store(now / store.sqlite.relative_to(then))
    return store


def current_location(store: Store, location: str) -> str:
    """The artifact URI `location` of a sqlite store, which may have been written where the store was before."""
    root, named, rest = unquote(urlsplit(location).path).rpartition(f"/{ARTIFACTS}")
    if not (store.sqlite and location.startswith("file:") and named) or (rest and rest[0] != "/"):
        return location
    then, now = Path(root) / ARTIFACTS, store.sqlite.parent / ARTIFACTS
    # A root that can be used, with nothing beside the store, is the user's own choice.
    stale = then != now and (now.is_dir() or not os.access(then, os.W_OK))
    return f"{store.artifacts}{quote(rest)}" if stale else location


def adopt(store: Store) -> None:
    """Rewrite the artifact URIs in a sqlite store that was moved or copied: MLflow has no other way to tell it."""
    if store.sqlite is None:
        return
    with closing(sqlite3.connect(store.sqlite, timeout=20.0)) as db:
        for table, column in _LOCATIONS:
            for (known,) in db.execute(f"SELECT DISTINCT {column} FROM {table}").fetchall():
                now = current_location(store, known or "")
                if known and now != known:
                    db.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (now, known))
        db.commit()
