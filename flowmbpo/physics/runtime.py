"""Starts Warp the way this package uses it: quietly, with what it has to say in Python's log."""

from __future__ import annotations

import functools
import logging
import os
import tempfile
from pathlib import Path

import warp as wp

from flowmbpo.errors import UserError

_log = logging.getLogger(__name__)
CACHE_VARIABLE = "WARP_CACHE_PATH"


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
    """Initialise Warp once; announces (level INFO) that the first use on a machine compiles for some seconds.

    Raises UserError when no folder can be written into which kernels could be compiled.
    """
    wp.set_logger(_ToPythonLog())
    usual = _usual_cache()
    if reason := _not_writable(usual / wp.config.version):
        other = _cache_of_our_own(usual, reason)
        _log.warning(
            "compiled kernels are kept in %s, because %s cannot be used (%s); %s names another folder",
            other,
            usual,
            reason,
            CACHE_VARIABLE,
        )
        wp.config.kernel_cache_dir = str(other)
    _log.info("loading the simulator; its first use on a machine compiles it, which takes about ten seconds")
    wp.init()


def _usual_cache() -> Path:
    """Where Warp keeps compiled kernels if nobody intervenes; below it a folder for each version."""
    named = wp.config.kernel_cache_dir or os.environ.get(CACHE_VARIABLE)
    return Path(named or os.path.join(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache"), "warp"))


def _not_writable(folder: Path) -> str:
    """Why nothing can be written into `folder`, which is made if it is missing; empty when it can."""
    if str(folder).startswith("~"):
        return "this user has no home"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def _cache_of_our_own(usual: Path, reason: str) -> Path:
    """A folder of this user among the temporary files, the same in every process. Programs are loaded from it, so one
    that somebody else could have filled is not taken."""
    try:
        folder = Path(tempfile.gettempdir()) / f"flowmbpo-warp-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if found.st_uid == os.getuid() and not found.st_mode & 0o022 and not _not_writable(folder):
            return folder
        return Path(tempfile.mkdtemp(prefix="flowmbpo-warp-"))
    except OSError as error:
        raise UserError(
            f"the simulator needs a folder for its compiled kernels: {usual} cannot be used ({reason}) and neither can "
            f"one for temporary files ({error.strerror or error}); name a folder that can be written with "
            f"{CACHE_VARIABLE}=FOLDER"
        ) from None
