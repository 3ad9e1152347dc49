"""Tells somebody how a run ended: one JSON POST to a URL, or one command with the JSON on its standard input.

It happens after the work is done and saved, and whatever goes wrong with it is one warning.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tomllib
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flowmbpo.cli import tables
from flowmbpo.errors import UserError
from flowmbpo.reports.statistics import COLLAPSED

if TYPE_CHECKING:
    from flowmbpo.training.result import RunResult

SECONDS, SECONDS_WHEN_STOPPED = 20.0, 3.0  # that the receiver may take; who is told to stop is expected to be quick
VARIABLE = "FLOWMBPO_NOTIFY"
REQUEUES = "FLOWMBPO_REQUEUES"  # set by the jobs whose run continues after SIGUSR1


def usual_target() -> str | None:
    """$FLOWMBPO_NOTIFY, else `notify` in ~/.config/flowmbpo/config.toml.

    A wrong one is a warning: nobody gave it to this run, which may be a job on a machine that lacks the command.
    """
    folder = Path(os.path.expanduser(os.environ.get("XDG_CONFIG_HOME") or "~/.config"))
    file = folder / "flowmbpo" / "config.toml"
    source, target = f"${VARIABLE}", os.environ.get(VARIABLE)
    try:
        if not target and file.is_file():
            source, target = str(file), tomllib.loads(file.read_text(encoding="utf-8")).get("notify")
        if target:
            check_target(target)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        tables.say(f"warning: nobody will be notified: {source}: {error}", style="yellow")
        return None
    return target or None


def check_target(target: str) -> None:
    """Raise UserError unless `target` is a URL or begins with a command that exists."""
    if target.startswith(("http://", "https://")):
        if urlsplit(target).hostname:
            return
        raise UserError(f"--notify {target!r} names no host")
    try:
        words = shlex.split(target)
    except ValueError as error:
        raise UserError(f"--notify {target!r}: {error}") from None
    if not words or not shutil.which(words[0]):
        what = "neither a URL (http://...) nor a command that exists here"
        raise UserError(f"--notify {target!r} is {what}{_hint(target)}")


def _hint(command: str) -> str:
    """What to write where it looks as if a shell were expected to read it."""
    return "; it is run without a shell, so write sh -c '...'" if re.search(r"[|&;<>$`~]|^\w+=", command) else ""


def event_of(result: RunResult) -> str:
    """finished, collapsed (final below 0.3 of the peak), not finite, failed, stopped or requeued."""
    if result.status == "KILLED":
        return "requeued" if os.environ.get(REQUEUES) and result.exit_code == 128 + signal.SIGUSR1 else "stopped"
    if result.status == "FAILED":
        return "not finite" if "finite" in result.message else "failed"
    peak, final = result.peak_reward, result.final_reward
    return "collapsed" if peak and peak > 0 and final is not None and final / peak < COLLAPSED else "finished"


def notify(target: str, result: RunResult) -> str:
    """Tell `target` how the run ended; returns what went wrong, empty for nothing."""
    seconds = SECONDS_WHEN_STOPPED if result.status == "KILLED" else SECONDS
    document = json.dumps({"event": event_of(result), **result.document()}, default=str).encode()
    try:
        if target.startswith(("http://", "https://")):
            request = urllib.request.Request(target, document, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=seconds):
                return ""
        done = subprocess.run(shlex.split(target), input=document, capture_output=True, timeout=seconds, check=False)
        said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        ended = f"{target!r} ended with exit code {done.returncode}{said and f' ({said})'}{_hint(target)}"
        return ended if done.returncode else ""
    except Exception as error:  # a receiver may fail in any way; the run has not
        return str(error) or type(error).__name__
