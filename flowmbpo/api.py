"""The tool from Python, for notebooks: the same experiments, checks and errors as on the command line.

`import flowmbpo` loads none of this; the first use of one of its names does. Results are pandas tables with the columns
of the command's `--json`. A user's mistake raises UserError (`RegistryError` lists all of a registry), work that
failed WorkFailed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from flowmbpo.data_types import JSON, Document
from flowmbpo.errors import UserError
from flowmbpo.runs import checkpoint
from flowmbpo.spec.identity import check_seeds
from flowmbpo.spec.registry import Registry, load_registry
from flowmbpo.tracking.reader import open_reader

if TYPE_CHECKING:
    import pandas as pd

    from flowmbpo.algorithms.policy import DeterministicPolicy
    from flowmbpo.runs.layout import RunFiles
    from flowmbpo.training.progress import Progress, Watcher

log = logging.getLogger("flowmbpo")


def run(
    names: str | Sequence[str],
    *,
    seeds: int | Sequence[int] = 0,
    overrides: Mapping[str, JSON] | str | Sequence[str] = (),
    device: str = "auto",
    epochs: int | None = None,
    time_limit: float | None = None,
    registry: Path | str | None = None,
    tracking_uri: str | None = None,
    watcher: Watcher | None = None,
) -> pd.DataFrame:
    """Train experiments, one after the other; a row per run.

    `overrides` are keys of the spec with their values (`{"train.horizon": 16}`), `time_limit` is in seconds per run,
    `watcher` follows the progress (default: warnings go to the log). After a signal the remaining runs do not start.
    """
    import pandas as pd

    from flowmbpo.training import session

    options = session.RunOptions(device, _uri(tracking_uri), epochs, time_limit, PICTURES)
    numbers = check_seeds([seeds] if isinstance(seeds, int) else seeds)
    changed = overrides if isinstance(overrides, Mapping) else _listed(overrides)
    given = [f"{key}={value}" for key, value in changed.items()] if isinstance(changed, Mapping) else changed
    known = _registry(registry)
    watcher = watcher or _LogWatcher()
    chosen = known.to_train(_listed(names), changed)
    for resolved in chosen:
        for warning in resolved.warnings:
            watcher.message(str(warning), warning=True)
    results: list[Document] = []
    for resolved in chosen:
        for seed in numbers:
            result = session.train(resolved.spec, seed, options, watcher, given)
            results.append(result.document())
            if result.exit_code > 2:
                return pd.DataFrame(results)
    return pd.DataFrame(results)


def runs(*, tracking_uri: str | None = None) -> pd.DataFrame:
    """All runs of the store, newest first."""
    import pandas as pd

    from flowmbpo.tracking.recovery import current_runs

    return pd.DataFrame([found.document() for found in current_runs(open_reader(_uri(tracking_uri)))])


def compare(
    selectors: str | Sequence[str], *, registry: Path | str | None = None, tracking_uri: str | None = None
) -> pd.DataFrame:
    """Experiments (all their finished runs) or single runs side by side; docs/comparing.md defines every column."""
    from flowmbpo.reports import compare as compare_runs

    return compare_runs(
        _listed(selectors), tracking_uri=_uri(tracking_uri), registry=_registry(registry)
    ).to_dataframe()


def load_policy(
    selector: str, *, checkpoint_name: str = "best", device: str = "cpu", tracking_uri: str | None = None
) -> DeterministicPolicy:
    """The policy of a run (id or its beginning, NAME/seed-N, or an experiment's newest): observations `[N, O]` in,
    actions `[N, A]` in [-1, 1] out. `checkpoint_name` is best, last or an epoch."""
    from flowmbpo.tracking.mlflow_artifacts import chosen_checkpoint
    from flowmbpo.training import loading
    from flowmbpo.training.devices import choose_device

    with suppress(UserError):  # no registry is needed to load what is there
        selector = _registry(None).without_alias(selector)
    with chosen_checkpoint(open_reader(_uri(tracking_uri)), selector, checkpoint_name) as (_, _, folder):
        return loading.load_policy(checkpoint.verify(folder, "checkpoint"), choose_device(device))


# --- what a finished run gets besides its numbers --------------------------------------------------------------------


def draw_learning_curve(files: RunFiles, device: str) -> Path:
    """`learning_curve.png` among the run's artifacts."""
    from flowmbpo.reports.run_picture import picture_of_run

    files.artifacts.mkdir(parents=True, exist_ok=True)
    return picture_of_run(files.root, files.artifacts)


def draw_replay(files: RunFiles, device: str) -> Path:
    """`replay.html` of the run's best checkpoint, among its artifacts."""
    from flowmbpo.reports.replay import write_replay_html
    from flowmbpo.training.rollout import episode_of_checkpoint

    page = files.artifacts / "replay.html"
    (chosen,) = checkpoint.select(checkpoint.evaluated(files), "best")
    episode = episode_of_checkpoint(files.checkpoint(chosen.epoch), device)
    page.parent.mkdir(parents=True, exist_ok=True)
    write_replay_html(episode, page)
    return page


PICTURES = {"learning curve": draw_learning_curve, "replay": draw_replay}


class _LogWatcher:
    """Shows nothing, and logs what a person would be told."""

    def started(self, run_id: str, name: str, seed: int) -> None:
        log.info("%s/seed-%d: run %s started", name, seed, run_id)

    def progress(self, progress: Progress) -> None:
        log.info("epoch %d of %d", progress.epoch, progress.max_epochs)

    def phase(self, text: str) -> None:
        log.info("%s", text)

    def message(self, text: str, warning: bool = False) -> None:
        log.log(logging.WARNING if warning else logging.INFO, "%s", text)

    def ended(self) -> None:
        pass


def _listed(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _uri(given: str | None) -> str | None:
    return given or os.environ.get("MLFLOW_TRACKING_URI")


def _registry(given: Path | str | None) -> Registry:
    path = given or os.environ.get("FLOWMBPO_REGISTRY")
    return load_registry(Path(path) if path else None)
