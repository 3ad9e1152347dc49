"""Asks a training loop to stop at the next safe point when a signal arrives; does no saving itself."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_WATCHED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


class StopRequest:
    """Which signal, if any, asked the run to stop. A SIGINT after that ends the process at once."""

    def __init__(self) -> None:
        self.signum: int | None = None

    def __bool__(self) -> bool:
        return self.signum is not None

    @property
    def exit_code(self) -> int:
        """128 + signal number, as shells expect (130 for Ctrl-C, 143 for SIGTERM)."""
        return 128 + self.signum if self.signum is not None else 0

    @property
    def name(self) -> str:
        return signal.Signals(self.signum).name if self.signum is not None else ""

    def _receive(self, signum: int, _frame: FrameType | None) -> None:
        self.signum = self.signum or signum
        # From now on the system itself ends the process at a Ctrl-C, even inside a long kernel. A folder that is being
        # written has a temporary name, so whatever was complete before stays loadable.
        signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def watch_signals() -> Iterator[StopRequest]:
    """Catch SIGINT, SIGTERM, SIGUSR1 and SIGHUP while training; the previous handlers return afterwards."""
    request = StopRequest()
    nohup = (
        signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    )  # whoever started us wants the run to outlive the terminal
    watched = [number for number in _WATCHED if not (number == signal.SIGHUP and nohup)]
    previous = {number: signal.signal(number, request._receive) for number in watched}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def plain_interrupt() -> Iterator[None]:
    """Before and after training, when nothing can be lost, Ctrl-C ends the process as it ends any other program."""
    previous = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
