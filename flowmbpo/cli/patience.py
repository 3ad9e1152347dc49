"""Looking again and again at something that may not answer for a while: a server, Slurm."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from flowmbpo.cli import streams, tables
from flowmbpo.errors import WorkFailed

P = ParamSpec("P")
T = TypeVar("T")


def patiently(interval: float, look: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """`look(*arguments)`, repeated every `interval` seconds until it is answered or nobody reads any more; each
    reason is said once."""
    said = ""
    while True:
        try:
            return look(*arguments, **options)
        except WorkFailed as error:
            if streams.nobody_reads():
                raise
            if str(error) != said:
                said = str(error)
                tables.say(f"warning: {said}; asked again every {interval:g} s", style="yellow")
        time.sleep(interval)
