"""Reading runs: the contract, the choice of the reader for a store, and the selection of runs by name or id.

Not here: where the records come from (`sqlite_reader`, `mlflow_reader`) and what they mean (`flowmbpo.reports`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Protocol

from flowmbpo.errors import UserError
from flowmbpo.runs.layout import find_id
from flowmbpo.tracking.records import CheckpointRecord, RunRecord
from flowmbpo.tracking.store import Store, check_store, resolve_store

if TYPE_CHECKING:
    import pandas as pd


class Reader(Protocol):
    """Bulk reads of one store."""

    store: Store

    def runs(self) -> list[RunRecord]:
        """All runs that are not deleted, newest first. Raises UserError where their whole experiment was deleted."""
        ...

    def curves(self, runs: Sequence[RunRecord], metrics: Sequence[str]) -> pd.DataFrame:
        """Points of `metrics` of `runs`: columns run_id, metric, step (env steps), time (Unix s), value; sorted by run,
        metric and step. Of several values at one step the newest remains; NaN stays NaN."""
        ...

    def checkpoints(self, runs: Sequence[RunRecord]) -> list[CheckpointRecord]:
        """Checkpoints of `runs`, oldest first, each with its newest evaluation."""
        ...


def open_reader(uri: str | Store | None) -> Reader:
    """The reader for a store.

    Raises:
        UserError: there is no such store.
        WorkFailed: it is damaged, or a server that does not answer.
    """
    store = uri if isinstance(uri, Store) else resolve_store(uri)
    if store.sqlite:
        if not check_store(store):
            raise UserError(
                f"there are no runs in {store}: it does not exist yet. `flowmbpo run quickstart` makes the first run; "
                "--tracking-uri names another store"
            )
        from flowmbpo.tracking.sqlite_reader import SqliteReader

        return SqliteReader(store)
    from flowmbpo.tracking.mlflow_reader import MlflowReader

    return MlflowReader(store)


def select_runs(runs: Sequence[RunRecord], selectors: Iterable[str]) -> list[RunRecord]:
    """Runs that the selectors mean, each once: an experiment's name, a run's (NAME/seed-N), an id or its beginning.

    Raises:
        UserError: a selector that matches nothing, or the beginning of several run ids; it names what there is.
    """
    return list({run.run_id: run for selector in selectors for run in _select(runs, selector)}.values())


def select_run(runs: Sequence[RunRecord], selector: str) -> RunRecord:
    """The one run that `selector` means; of an experiment with several runs the newest.

    Raises:
        UserError: nothing matches.
    """
    return _select(runs, selector)[0]


def _select(runs: Sequence[RunRecord], selector: str) -> list[RunRecord]:
    if not runs:
        raise UserError(f"no run matches {selector!r}: the store has no runs yet; `flowmbpo run {selector}` makes one")
    for matches in (
        [run for run in runs if run.name == selector],
        [run for run in runs if run.run_name == selector],
        [run for run in runs if selector in (run.run_id, run.mlflow_run_id)],
    ):
        if matches:
            return matches
    if run_id := find_id(selector, [run.run_id for run in runs]):
        return [run for run in runs if run.run_id == run_id]
    names = sorted({run.name for run in runs})
    near = get_close_matches(selector, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise UserError(
        f"no run matches {selector!r}{hint} There are runs of {', '.join(names[:20])}"
        f"{', ...' if len(names) > 20 else ''}; `flowmbpo runs` lists them with their ids"
    )
