"""Whether the process behind a run is still there: the run's lock, its heartbeat, and who is dead.

A killed process (kill -9, power loss) cannot close its run, so whoever reads runs looks first. Not here: what becomes
of a dead run (`recovery`).
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from flowmbpo.errors import UserError, WorkFailed
from flowmbpo.runs import files, heartbeats
from flowmbpo.runs.layout import RunFiles

HEARTBEAT_SECONDS = 30.0  # between two signs of life in the store
SILENCE_SECONDS = 600.0  # while we saw none, a run on another machine counts as dead

HOST_TAG = "flowmbpo.host"
PID_TAG = "flowmbpo.pid"
PID_SPACE_TAG = "flowmbpo.pid_space"
DIRECTORY_TAG = "flowmbpo.directory"
HEARTBEAT_TAG = "flowmbpo.heartbeat"


class RunLock:
    """Held by the one process that trains a run. The kernel releases it however that process ends."""

    def __init__(self, run_folder: Path) -> None:
        self.path = RunFiles(run_folder).lock
        self._fd: int | None = None

    def acquire(self) -> None:
        """Raises UserError when another process holds the run."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise UserError(
                f"{self.path.parent} cannot be written ({error.strerror}); run in another directory"
            ) from None
        if not files.lock_within(fd, 0.5):  # `is_locked` of others holds it for a moment
            holder = _read_holder(fd)
            os.close(fd)
            raise UserError(f"run {self.path.parent.name} is being trained by {holder}; wait for it or stop it first")
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps({"pid": os.getpid(), "host": hostname()}).encode(), 0)
        except OSError as error:
            os.close(fd)
            raise WorkFailed(f"{self.path} cannot be written: {error.strerror}") from None
        self._fd = fd

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _read_holder(fd: int) -> str:
    try:
        holder = json.loads(os.pread(fd, 4096, 0))
        return f"process {holder['pid']} on {holder['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"


def is_locked(run_folder: Path) -> bool | None:
    """Whether a process holds the run; None where the folder has no lock that could tell."""
    return files.is_locked(RunFiles(run_folder).lock)


def hostname() -> str:
    return socket.gethostname()


def pid_space() -> str:
    """Where a process id means something: one boot of one machine, one container. Empty where that is unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip() + os.readlink(
            "/proc/self/ns/pid"
        )
    except OSError:
        return ""


def process_tags(run_folder: Path) -> dict[str, str]:
    """What a run says about its process, so that others can tell whether it lives."""
    return {
        HOST_TAG: hostname(),
        PID_TAG: str(os.getpid()),
        PID_SPACE_TAG: pid_space(),
        DIRECTORY_TAG: str(run_folder.absolute()),
        HEARTBEAT_TAG: str(int(time.time())),
    }


def is_dead(tags: Mapping[str, str], folder: Path | None = None, now: float | None = None) -> bool:
    """Whether a run that claims to be RUNNING has no process any more, as far as can be told from here.

    On the run's own machine the lock in its `folder` decides (default: where it says that it runs); where that is gone,
    its process id, if that means anything here. Elsewhere only silence counts, measured by our own clock: `now`, Unix
    seconds. A run that never said where it runs (written by another tool) is left alone.
    """
    host = tags.get(HOST_TAG)
    if host is None:
        return False
    directory = folder or (Path(tags[DIRECTORY_TAG]) if tags.get(DIRECTORY_TAG) else None)
    if host == hostname():
        locked = is_locked(directory) if directory else None
        if locked is not None:
            return not locked
        pid = tags.get(PID_TAG, "")
        if pid.isdigit() and pid_space() and tags.get(PID_SPACE_TAG) == pid_space():
            import psutil

            return not psutil.pid_exists(int(pid))
    if HEARTBEAT_TAG not in tags:
        return False
    run = f"{host}:{tags.get(DIRECTORY_TAG, '')}"
    return heartbeats.silence(run, tags[HEARTBEAT_TAG], time.time() if now is None else now) > SILENCE_SECONDS
