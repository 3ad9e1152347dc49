"""Opens an MLflow store and turns MLflow's exceptions into ours; for `mlflow_writer` and `mlflow_reader` only.

MLflow is imported on first use (1.5 s). Not here: what is written and read.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from flowmbpo.errors import UserError, WorkFailed
from flowmbpo.tracking.store import (
    Store,
    check_database,
    check_store,
    damaged,
    deleted_experiment,
    schema_lock,
    without_password,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient


class Unreachable(WorkFailed):
    """The store cannot be used just now; trying again later may help."""


class Refused(WorkFailed):
    """The store will never take this entry; trying again cannot help."""


def open_client(store: Store, *, write: bool) -> MlflowClient:
    """A client of `store`; a sqlite store is created when `write` is set, by one process at a time.

    Raises:
        UserError, WorkFailed: the store is not usable, with the reason (see `check_store`).
        Unreachable: no answer from the server.
    """
    if not check_store(store, write=write) and not write:
        raise UserError(f"there are no runs in {store}: it does not exist yet; `flowmbpo run quickstart` makes one")
    check_database(store)
    # Whatever the user has set: what MLflow has taken is crossed off our list, so it must be stored by then.
    os.environ["MLFLOW_ENABLE_ASYNC_LOGGING"] = "false"
    # Without these a server that is away costs two minutes per call. What the user has set stays.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # Standard output and the terminal are ours.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    logging.getLogger("alembic").setLevel(logging.CRITICAL)  # failures are reported by us, once and without a traceback
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.CRITICAL)  # importing MLflow sets it anew
    with (
        translated(store),
        schema_lock(store.sqlite) if store.sqlite and write else nullcontext(),
        _without_stray_folder(store),
    ):
        return MlflowClient(tracking_uri=store.uri)


@contextmanager
def _without_stray_folder(store: Store) -> Iterator[None]:
    """MLflow makes the folder of a sqlite file without decoding its URI: another one, where the name holds % or ?."""
    stray = Path(store.uri.removeprefix("sqlite:///")).parent
    remove = store.sqlite is not None and stray != store.sqlite.parent and not stray.exists()
    yield
    if remove:
        with suppress(OSError):
            os.removedirs(stray)


@contextmanager
def writing(store: Store) -> Iterator[MlflowClient]:
    """A client to write with, whose exceptions are ours. Raises as `open_client`."""
    client = open_client(store, write=True)
    with translated(store):
        yield client


def find_experiment(client: MlflowClient, store: Store, name: str) -> str | None:
    """Id of the experiment; None without one. Raises UserError where it was deleted: restored unasked, all its old runs
    would count."""
    found = client.get_experiment_by_name(name)
    if found and found.lifecycle_stage == "deleted":
        raise deleted_experiment(store, name, found.experiment_id)
    return found.experiment_id if found else None


@contextmanager
def translated(store: Store) -> Iterator[None]:
    """MLflow's exceptions as ours."""
    import sqlalchemy.exc
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise _translate(store, error) from error
    except sqlalchemy.exc.DatabaseError as error:
        raise _translate(store, error.orig or error) from error
    except OSError as error:
        raise Unreachable(f"{store}: {error}") from error
    except (UserError, WorkFailed, AssertionError):
        raise
    except Exception as error:  # what MLflow and the libraries below it make of answers that are no answers
        raise Unreachable(f"{store} cannot be used: {type(error).__name__}: {_first_line(error)}") from error


def _translate(store: Store, error: BaseException) -> Exception:
    text, first = str(error), _first_line(error)
    if "out-of-date database schema" in text or "Can't locate revision" in text:
        return WorkFailed(
            f"{store} was written by another MLflow version ({first[:160]}); make a copy of it, then "
            f"`mlflow db upgrade {store.uri}`, or name another --tracking-uri"
        )
    if store.sqlite and ("malformed" in text or "not a database" in text):
        return damaged(store.sqlite, RuntimeError(first[:160]))
    code = getattr(error, "error_code", "")
    if code in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST"):
        return Refused(f"{store} refused: {first[:400]}")
    if code in ("PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"):
        return Unreachable(f"{store} does not let us in: {first[:200]}")
    return Unreachable(f"{store} cannot be reached: {_plainly(first)}")


def _first_line(error: BaseException) -> str:
    return next(iter(without_password(str(error)).strip().splitlines()), type(error).__name__)[:400]


# What the network libraries say in 300 characters, in a few words.
_PLAIN = {
    "Connection refused": "connection refused (is the server running?)",
    "timed out": "no answer in time",
    "Name or service not known": "no such host",
    "Temporary failure in name resolution": "the host's name cannot be resolved",
    "Failed to resolve": "the host's name cannot be resolved",
    "No route to host": "no route to the host",
    "database is locked": "the database is locked by another process",
}


def _plainly(text: str) -> str:
    return next((plain for part, plain in _PLAIN.items() if part in text), text[:300])
