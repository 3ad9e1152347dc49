"""Standard output and standard error that never end a command: what nobody can take is lost, the work goes on.

A pipe whose reader is gone (`| head`), a closed terminal and a full disk are all errors of a write, wherever it stands.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

_NOBODY_THERE = (errno.EPIPE, errno.EIO, errno.EBADF)  # the reader has gone, which is its own choice


class _Lossy(io.FileIO):
    """A descriptor to write to; after the first error everything is dropped."""

    failure: OSError | None = None

    def write(self, data: object) -> int:
        length = memoryview(data).nbytes  # type: ignore[arg-type]
        while self.failure is None:
            try:
                written = super().write(data)  # type: ignore[arg-type]
            except OSError as error:
                self.failure = error
                break
            if written is not None:
                return written
            select.select([], [self], [])  # somebody has made the descriptor non-blocking, and it is full
        return length


def make_lossy() -> None:
    """Replace `sys.stdout` and `sys.stderr`. Also characters that a terminal does not know are escaped."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started us; the next file opened would get its number
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (as long as the process)
        elif type(stream) is io.TextIOWrapper and stream is getattr(sys, f"__{name}__"):
            raw = _Lossy(stream.fileno(), "w", closefd=False)
            lines = stream.line_buffering
            buffer = io.BufferedWriter(raw)
            setattr(sys, name, io.TextIOWrapper(buffer, stream.encoding, "backslashreplace", line_buffering=lines))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


_json: TextIO | None = None  # where a JSON document goes while everything else goes to standard error


@contextmanager
def json_alone() -> Iterator[None]:
    """Standard output holds what `write_json` gets and nothing else: whatever else is printed, by libraries too, goes
    to standard error."""
    global _json
    _json, sys.stdout = sys.stdout, sys.stderr
    try:
        yield
    finally:
        sys.stdout, _json = _json, None


def write_json(text: str) -> None:
    (_json or sys.stdout).write(text)


def nobody_reads() -> bool:
    """Whether standard output is lost: a command that only shows what goes on then ends."""
    return _failure() is not None


def lost_output() -> str:
    """Why standard output could not be written; empty when it could, or when its reader has gone."""
    failure = _failure()
    return "" if failure is None or failure.errno in _NOBODY_THERE else failure.strerror or str(failure)


def _failure() -> OSError | None:
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.failure if isinstance(raw, _Lossy) else None
