"""Files that appear whole or not at all, JSON, checksums and locks between processes. Knows no file by its name."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from flowmbpo.errors import UserError, WorkFailed

_POLL_SECONDS = 0.05


class BrokenFile(ValueError):
    """A file that is truncated, changed, foreign or malicious; nothing of it was executed or trusted."""


@contextmanager
def atomic_file(path: Path, mode: int = 0o644) -> Iterator[Path]:
    """A temporary path with the same suffix that replaces `path` when the block ends well: readers see the old file or
    the new one, whole, also after a power loss."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode))
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def output_file(path: Path) -> Iterator[Path]:
    """`atomic_file` for a file that was asked for. Raises WorkFailed when it cannot be written."""
    try:
        with atomic_file(path) as temporary:
            yield temporary
    except OSError as error:
        raise WorkFailed(f"could not write {path}: {error.strerror or error}") from error


def check_output(path: Path, suffixes: Collection[str] = ()) -> None:
    """Raises UserError for a file that cannot be written, before any work is done."""
    folder = path.absolute().parent
    if suffixes and path.suffix.lower() not in suffixes:
        *others, last = suffixes
        raise UserError(f"{path}: the name must end in {', '.join(others)}{' or ' if others else ''}{last}")
    if path.is_dir():
        raise UserError(f"{path} cannot be written: it is a folder")
    if not folder.is_dir():
        raise UserError(f"{path} cannot be written: there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise UserError(f"{path} cannot be written: no permission to write in {folder}")


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """A folder that appears under its name only when it is complete; on any error nothing is left behind."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        _sync(temporary)
        if target.exists():  # the same epoch again, after a resume: the new one replaces it
            old = target.with_name(f".{target.name}.{os.getpid()}.old")
            os.rename(target, old)
            os.rename(temporary, target)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.rename(temporary, target)
        _sync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, document: object, mode: int = 0o644) -> None:
    """Replace the file as a whole; `mode` is that of a new file."""
    with atomic_file(path, mode) as temporary:
        temporary.write_text(json.dumps(document, indent=1), encoding="utf-8")


def read_json(path: Path, limit: int = 64 << 20) -> Any:
    """Read JSON of at most `limit` bytes. Raises BrokenFile."""
    try:
        if path.stat().st_size > limit:
            raise BrokenFile(f"{path}: larger than {limit} bytes")
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BrokenFile(f"{path}: {error}") from error


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def lock_within(descriptor: int, seconds: float) -> bool:
    """Lock an open file for this process alone; False when others held it all the time.

    The kernel lets go of a lock when the file is closed, however the process ends.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)


@contextmanager
def locked(path: Path, seconds: float = float("inf")) -> Iterator[TextIO | None]:
    """The open file, locked; None when somebody else held it for so many seconds."""
    with open(path, "a+", encoding="utf-8") as file:
        yield file if lock_within(file.fileno(), seconds) else None


def is_locked(path: Path) -> bool | None:
    """Whether a process of this machine holds the lock on `path`; None where there is no file that could tell.

    A look holds the lock for a moment itself, so whoever wants it tries for longer than that.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return False
