"""Which MLflow store is meant, and whether it can be used at all; no MLflow import, so that looking is cheap.

Not here: reading and writing runs (`mlflow_reader`, `sqlite_reader`, `mlflow_writer`).
"""

from __future__ import annotations

import os
import re
import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote, urlsplit

from flowmbpo.errors import UserError, WorkFailed
from flowmbpo.runs.files import is_locked, locked

EXPERIMENT = "flowmbpo"
ARTIFACTS = "mlartifacts"  # folder beside a sqlite store
_SERVERS = ("http", "https")
_DATABASES = ("postgresql", "mysql", "mssql")


@dataclass(frozen=True)
class Store:
    """One MLflow store. `sqlite` is the database file where the store is one; `artifacts` the root for new experiments
    in it (None: the server decides)."""

    uri: str
    sqlite: Path | None = None
    artifacts: str | None = None

    @property
    def is_server(self) -> bool:
        return self.uri.split(":", 1)[0] in _SERVERS

    def __str__(self) -> str:
        if self.sqlite:
            return str(self.sqlite)
        return without_password(self.uri)


def without_password(uri: str) -> str:
    """The URI as it may be shown, also one that is none."""
    return re.sub(r"(?<=//)[^/]*@", "", uri)


def resolve_store(uri: str | None, directory: Path | None = None) -> Store:
    """The store behind `--tracking-uri`; None or empty means `mlflow.db` in `directory` (default: working directory).

    Raises:
        UserError: a URI that MLflow or flowmbpo cannot use.
    """
    shown = without_password(uri or "")
    directory = (directory or Path.cwd()).absolute()
    if not uri:
        return sqlite_store(directory / "mlflow.db")
    scheme = uri.split(":", 1)[0].split("+", 1)[0].lower() if ":" in uri else ""
    if scheme == "sqlite":
        path = unquote(uri.partition("///")[2].partition("?")[0])
        if not path or path == ":memory:":
            raise UserError(f"tracking URI {shown!r}: name a file, as in sqlite:///mlflow.db")
        return sqlite_store(directory / path)
    if scheme in _SERVERS:
        try:
            parts = urlsplit(uri)
            _ = parts.port  # raises ValueError when it is none
        except ValueError as error:
            raise UserError(f"tracking URI {shown!r} is malformed: {error}") from None
        if not parts.hostname or re.search(r"[\s\x00-\x20]", uri):
            raise UserError(f"tracking URI {shown!r} names no host; use for example http://127.0.0.1:5000")
        return Store(uri.rstrip("/"))
    if scheme in _DATABASES:
        return Store(uri)
    hint = f"sqlite:///{shown}" if uri.endswith((".db", ".sqlite")) else "sqlite:///mlflow.db"
    raise UserError(
        f"tracking URI {shown!r} is not supported: use sqlite:///FILE (for example {hint}), an MLflow server "
        f"(http://HOST:PORT) or a database URI ({', '.join(_DATABASES)}); MLflow 3 refuses folders"
    )


def deleted_experiment(store: Store, name: str, experiment_id: object) -> UserError:
    """The message for an experiment that was deleted in MLflow. Restored unasked, all its old runs would count."""
    uri = shlex.quote(without_password(store.uri))
    return UserError(
        f"the experiment {name!r} of {store} was deleted in MLflow, and all its runs with it. Name another store with "
        f"--tracking-uri, or restore it: `MLFLOW_TRACKING_URI={uri} mlflow experiments restore -x {experiment_id}`"
    )


def check_database(store: Store) -> None:
    """Raises UserError for a database whose URI SQLAlchemy does not understand or has no driver for. It is not
    connected to; files and servers pass."""
    if store.sqlite or store.is_server:
        return
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    try:
        make_url(store.uri).get_dialect().import_dbapi()
    except ImportError as error:
        raise UserError(
            f"tracking URI {str(store)!r} needs a driver that is not installed here ({error}); install it "
            "beside flowmbpo, or use an MLflow server (http://HOST:PORT)"
        ) from None
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        reason = without_password(str(error))
        raise UserError(f"tracking URI {str(store)!r} is malformed: {reason}") from None


def sqlite_store(path: Path) -> Store:
    """The store in a sqlite file, with artifacts beside it. Raises UserError."""
    try:
        artifacts = quote(str(path.parent / ARTIFACTS))
    except UnicodeEncodeError:
        raise UserError(f"{str(path)!r}: MLflow cannot use a folder whose name is not UTF-8; work in another") from None
    # SQLAlchemy decodes the path and ends it at a question mark.
    return Store(f"sqlite:///{str(path).replace('%', '%25').replace('?', '%3F')}", path, f"file://{artifacts}")


def check_store(store: Store, *, write: bool = False) -> bool:
    """Whether there may be runs in it: not in a file that is missing or still without MLflow's schema.

    Raises:
        UserError: the folder or the file is not ours to use.
        WorkFailed: the file is no sqlite database, damaged, or belongs to something else.
    """
    if (path := store.sqlite) is None:
        return True
    if path.is_symlink() and not path.resolve().parent.is_dir():
        raise UserError(f"{path} is a link to {os.readlink(path)}, which does not exist; repair or remove the link")
    if path.is_dir():
        raise UserError(f"{path} is a folder, not a database file; use sqlite:///{path / 'mlflow.db'}")
    if write:
        _check_writable(path)
    # Another process may be making the schema, table by table: what there is counts when it is done.
    making, tables = is_locked(_schema_lock_file(path)), _tables(path)
    if making or is_locked(_schema_lock_file(path)):
        with suppress(PermissionError), schema_lock(path):
            tables = _tables(path)
    if tables and "alembic_version" not in tables:
        raise WorkFailed(f"{path} is a database of something else than MLflow; name another --tracking-uri")
    return bool(tables)


def _tables(path: Path) -> set[str]:
    """Names of the tables; none for a file that is missing or empty."""
    if not path.exists():
        return set()
    try:
        with connect_readonly(path) as db:
            tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if "alembic_version" in tables:
                db.execute("SELECT version_num FROM alembic_version").fetchall()
    except sqlite3.OperationalError as error:
        if "locked" in str(error) or "busy" in str(error):
            return {"alembic_version"}  # somebody is writing to it: the writer's own retries deal with that
        raise UserError(
            f"{path} cannot be opened ({error}); check its permissions, or name another --tracking-uri"
        ) from None
    except sqlite3.DatabaseError as error:
        raise damaged(path, error) from None
    return tables


def damaged(path: Path, error: Exception) -> WorkFailed:
    """The message for a database file that sqlite cannot read."""
    return WorkFailed(
        f"{path} is damaged or no sqlite database ({error}); move it away or restore a backup "
        f"(`sqlite3 {path.name} .recover` rescues what is readable). Runs keep their own files in runs/."
    )


def _check_writable(path: Path) -> None:
    folder = path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror}); name another --tracking-uri") from None
    for place in (folder, path):
        if place.exists() and not os.access(place, os.W_OK):
            raise UserError(f"{place} is not writable; run elsewhere or name another --tracking-uri")


@contextmanager
def connect_readonly(path: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection that waits for writers and never creates the file.

    A writer that was killed leaves an unfinished transaction beside the file. Only who may write can undo it, so a
    connection that may does, for a moment.
    """
    with closing(_connect(path, "ro")) as db:
        try:
            db.execute("SELECT 1 FROM sqlite_master")
        except sqlite3.OperationalError as error:
            if "readonly" not in str(error):
                raise
            with closing(_connect(path, "rw")) as writer:
                writer.execute("SELECT 1 FROM sqlite_master")
        yield db


def _connect(path: Path, mode: Literal["ro", "rw"]) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(path))}?mode={mode}", uri=True, timeout=20.0)


@contextmanager
def schema_lock(path: Path) -> Iterator[None]:
    """Held while MLflow opens a database: its migrations fail when several processes run them at once."""
    with locked(_schema_lock_file(path)):
        yield


def _schema_lock_file(path: Path) -> Path:
    return path.with_name(path.name + ".lock")
