"""Starts Warp the way this package uses it: quietly, with what it has to say in Python's log."""

from __future__ import annotations

import functools
import logging

import warp as wp

_log = logging.getLogger(__name__)


class _ToPythonLog:
    """Warp's logger interface on Python's logging: nothing is printed, so `--json` output stays clean."""

    def debug(self, message: str) -> None:
        _log.debug(message)

    def info(self, message: str) -> None:
        _log.debug(message)

    def warning(self, message: str, category: type[Warning] | None = None, stacklevel: int = 1) -> None:
        _log.warning(message)

    def error(self, message: str) -> None:
        _log.error(message)


@functools.cache
def start_warp() -> None:
    """Initialise Warp once; announces (level INFO) that the first use on a machine compiles for some seconds."""
    wp.set_logger(_ToPythonLog())
    _log.info("loading the simulator; its first use on a machine compiles it, which takes about ten seconds")
    wp.init()
