"""How a task stands, in Slurm's words whichever cluster it is on; and how it ended, from its own report."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from flowmbpo.cluster.submission import Task

ACTIVE = {
    "PENDING",
    "CONFIGURING",
    "RUNNING",
    "COMPLETING",
    "SUSPENDED",
    "STOPPED",
    "REQUEUED",
    "RESIZING",
    "SIGNALING",
}


@dataclass(frozen=True)
class QueueState:
    """PENDING, RUNNING, COMPLETED, FAILED, CANCELLED, TIMEOUT, OUT_OF_MEMORY, NODE_FAIL, PREEMPTED, ...; KILLED when
    nobody knows by what. `reason` says why it waits."""

    state: str
    reason: str = ""
    node: str = ""

    @property
    def active(self) -> bool:
        return self.state in ACTIVE


def reported_state(task: Task) -> QueueState:
    """How a task ended as far as it could write it down itself; PENDING when it has not started."""
    reported = task.state
    code = reported.exit_code
    if code == 0:
        name = "COMPLETED"
    elif reported.out_of_memory:
        name = "OUT_OF_MEMORY"
    elif task.is_cancelled or code in (128 + signal.SIGTERM, 128 + signal.SIGINT, 128 + signal.SIGHUP):
        name = "CANCELLED"
    elif code is None:
        name = "KILLED" if reported.starts else "PENDING"
    else:
        name = "KILLED" if code == 128 + signal.SIGKILL else "FAILED"
    return QueueState(name, node=reported.node)
