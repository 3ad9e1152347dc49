"""One job of a cluster: looks around, trains its tasks side by side, and is requeued while there is more to do.

Not here: one task (`task`), submitting (`slurm`, `local`).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from flowmbpo.cluster import preflight, race, slurm_queue, snapshot
from flowmbpo.cluster.submission import Submission, Task
from flowmbpo.cluster.task import TERMINATED, Attempt
from flowmbpo.runs.files import locked

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class TrainingTask:
    """The callable of one job, pickled by submitit: element `index` of the array of the submission in `folder`."""

    folder: Path
    index: int

    def __call__(self) -> None:
        """Train until the runs end. Leaves by SystemExit with the worst exit code unless that is 0."""
        submission = Submission.load(self.folder)
        tasks = [task for task in submission.members(self.index) if not task.is_cancelled]
        if not tasks:
            sys.exit(TERMINATED)
        if submission.pack > 1:  # it may be requeued for the sake of some
            tasks = [task for task in tasks if task.state.exit_code is None]
        with ExitStack() as stack:
            for task in tasks:
                stack.enter_context(locked(task.files.lock))  # tells others that the task lives
            code = train(submission, self.index, tasks) if tasks else 0
        if code:
            sys.exit(code)


def train(submission: Submission, element: int, tasks: Sequence[Task]) -> int:
    """Look around, start or continue the runs, wait for them, and requeue the job if there is more to do."""
    signals = _Signals()
    attempts = [Attempt(task) for task in tasks]
    for attempt in attempts:
        attempt.save()
    if reason := snapshot.missing(submission) or _exhausted(attempts) or _preflight(submission, attempts):
        for attempt in attempts:
            attempt.fail(reason)
        return 1
    if not race.won(submission, element):
        return TERMINATED
    for attempt in attempts:
        attempt.begin()
    signals.forward_to(attempts)
    living = attempts
    while living := [attempt for attempt in living if not attempt.ended()]:
        time.sleep(POLL_SECONDS)
    codes = [attempt.state.exit_code or 0 for attempt in attempts]
    again = [attempt for attempt in attempts if attempt.goes_on(signals.asked_for_room)]
    if again:
        refused = slurm_queue.requeue(os.environ.get("SLURM_JOB_ID", ""))
        if not refused:
            return max(codes)
        for attempt in again:
            more = submission.continued_by(attempt.run_id())
            attempt.fail(f"Slurm would not requeue the job ({refused}); continue with: {more}")
    return max(attempt.state.exit_code or 0 for attempt in attempts)


def _preflight(submission: Submission, attempts: Sequence[Attempt]) -> str:
    names = dict.fromkeys(attempt.task.experiment for attempt in attempts)
    return preflight.failure(submission, names, attempts[0].environment())


def _exhausted(attempts: Sequence[Attempt]) -> str:
    """Why nothing is started once more; empty when it may be."""
    limit = attempts[0].submission.request.max_requeues
    if max(attempt.state.starts for attempt in attempts) <= limit + 1:
        return ""
    return f"requeued {limit} times (max_requeues): look at the log for why it ends again and again"


class _Signals:
    """Passes SIGUSR1 and SIGTERM on to the runs, and stays alive itself to write down how they ended.

    Slurm may send them to all processes: for a run a repetition means nothing.
    """

    def __init__(self) -> None:
        self.asked_for_room = False
        self._attempts: Sequence[Attempt] = ()
        self._early: int | None = None
        signal.signal(signal.SIGUSR1, self._receive)
        signal.signal(signal.SIGTERM, self._receive)

    def forward_to(self, attempts: Sequence[Attempt]) -> None:
        self._attempts = attempts
        if self._early is not None:
            self._receive(self._early, None)

    def _receive(self, signum: int, _frame: object) -> None:
        self.asked_for_room |= signum == signal.SIGUSR1
        self._early = signum
        for attempt in self._attempts:
            attempt.send(signum)
