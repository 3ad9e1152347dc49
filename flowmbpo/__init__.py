"""flowmbpo: model-based reinforcement-learning experiments that can be trusted, repeated and compared.

From Python: `run`, `runs`, `compare` and `load_policy`, imported on first use (see `flowmbpo.api`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowmbpo.api import compare, load_policy, run, runs

__version__ = "0.2.0"
__all__ = ["compare", "load_policy", "run", "runs"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from flowmbpo import api

    return getattr(api, name)
