"""Optuna's file of a search, and the processes that work on it at once: which trial is whose, and whether that one
lives.

It is Optuna's journal file, which is right for network disks too, where several writers damage a sqlite file.
Not here: what a trial trains (`sweep`).
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from flowmbpo.errors import UserError, WorkFailed
from flowmbpo.runs.files import locked
from flowmbpo.runs.lock import (
    DIRECTORY_TAG,
    HEARTBEAT_SECONDS,
    HOST_TAG,
    RunLock,
    hostname,
    is_dead,
    is_locked,
    process_tags,
)

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.storages.journal import JournalFileSymlinkLock
    from optuna.trial import FrozenTrial

JOURNAL = "optuna.journal"
_LOCK_SECONDS = 120  # after that the process that holds Optuna's lock was killed
KILLS = 3  # as often as that a trial may take its process with it, as by its memory
_PROCESS, _KILLED, WHY = "process", "killed", "why"
_TASK, _TASK_VARIABLE = "task", "FLOWMBPO_JOB_TASK"


def require_optuna() -> None:
    """Raises UserError where it is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise UserError("a search needs Optuna: pip install 'flowmbpo[sweep]'") from None


def open_study(folder: Path, name: str) -> Study:
    """The study `name` in the journal of `folder`, made where it is missing. Raises UserError without Optuna and
    WorkFailed for a file that is none of Optuna's."""
    require_optuna()
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock, JournalStorage

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal = folder / JOURNAL
    try:
        lock = JournalFileSymlinkLock(str(journal), grace_period=_LOCK_SECONDS)
        backend = JournalFileBackend(str(journal), lock)
        _mend(journal, lock)
        return optuna.create_study(
            study_name=name,
            storage=JournalStorage(backend),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
            direction="maximize",
            load_if_exists=True,
        )
    except Exception as error:  # what Optuna makes of a file that is none of its own
        raise WorkFailed(f"{journal} cannot be used ({error}); move it away, and the search begins anew") from None


def _mend(journal: Path, lock: JournalFileSymlinkLock) -> None:
    """Drop a last line that a full disk or a power loss has cut: Optuna could not read on after it."""
    lock.acquire()
    try:
        written = journal.read_bytes()
        whole = written.rfind(b"\n") + 1
        if 0 < whole < len(written):
            os.truncate(journal, whole)
    finally:
        lock.release()


class Worker:
    """One process that works on studies. While it is entered, others can tell that it lives."""

    def __init__(self, folder: Path) -> None:
        self._journal = folder / JOURNAL
        self._folder = folder / f"{JOURNAL}.workers" / secrets.token_hex(4)
        self._lock = RunLock(self._folder)
        self._beat_at = 0.0

    def __enter__(self) -> Worker:
        with locked(self._journal):
            for other in self._folder.parent.glob("*"):
                if is_locked(other) is False:  # of one that was killed
                    shutil.rmtree(other, ignore_errors=True)
            self._lock.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        shutil.rmtree(self._folder, ignore_errors=True)
        with suppress(OSError):
            self._folder.parent.rmdir()  # if it is empty

    def claim(self, study: Study, count: int) -> Trial | None:
        """The next of `count` trials, first one whose process is gone; None when all are done or somebody's."""
        from optuna import Trial
        from optuna.samplers import TPESampler
        from optuna.trial import TrialState

        with locked(self._journal):
            trial = None
            for known in study.trials:
                if not is_interrupted(known):
                    continue
                trial = Trial(study, known._trial_id)
                killed = known.user_attrs.get(_KILLED, 0) + bool(known.user_attrs.get(_PROCESS))
                trial.set_user_attr(_KILLED, killed)
                if killed < KILLS:
                    break
                trial.set_user_attr(WHY, f"its process was killed {killed} times")
                study.tell(trial, state=TrialState.PRUNED)
                trial = None
            if trial is None:
                if sum(known.state != TrialState.FAIL for known in study.trials) >= count:
                    return None
                trial = study.ask()
            self.beat(trial, at_once=True)
        # Of two trials that are drawn at once, the later one keeps away from where the other is.
        study.sampler = TPESampler(seed=trial.number, constant_liar=True)
        return trial

    def beat(self, trial: Trial, *, at_once: bool = False) -> None:
        """Say now and then that this process lives and trains `trial`."""
        if at_once or time.monotonic() - self._beat_at > HEARTBEAT_SECONDS:
            self._beat_at = time.monotonic()
            task = os.environ.get(_TASK_VARIABLE, "")
            trial.set_user_attr(_PROCESS, {**process_tags(self._folder), _TASK: task})

    def give_back(self, trial: Trial) -> None:
        """Somebody else may go on with it."""
        trial.set_user_attr(_PROCESS, {})


def is_interrupted(trial: FrozenTrial) -> bool:
    """Whether it has begun and not ended, and nobody works on it."""
    owner = trial.user_attrs.get(_PROCESS)
    return trial.state.name == "RUNNING" and (not owner or _is_gone(owner))


def _is_gone(owner: dict[str, str]) -> bool:
    if owner[_TASK] and owner[_TASK] == os.environ.get(_TASK_VARIABLE):
        return True  # an earlier start of this job
    if owner[HOST_TAG] == hostname() and not Path(owner[DIRECTORY_TAG]).is_dir():
        return True
    return is_dead(owner)
