"""What a run leaves on disk: every file name, how files are written and locked, the journal, checkpoints, episodes.

The room shares its name with a function of the Python interface: `flowmbpo.runs()` lists the runs of a store.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    def __call__(self, **options: Any) -> Any:
        """See `flowmbpo.api.runs`."""
        from flowmbpo import api

        return api.runs(**options)


sys.modules[__name__].__class__ = _Room
