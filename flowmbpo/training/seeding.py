"""Random numbers of a run: one seed split into independent ones, and the global states that a resume needs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch


class Seeds:
    """Seeds derived from a run's seed; neighbouring run seeds give unrelated streams (NumPy's SeedSequence)."""

    def __init__(self, seed: int) -> None:
        words = np.random.SeedSequence(seed).generate_state(3, dtype=np.uint64)
        self.networks, self.environment, self.algorithm = (int(word >> 1) for word in words)  # signed 63 bits


def random_states() -> dict[str, torch.Tensor]:
    """Torch's global random state (networks draw from explicit generators, which carry their own)."""
    state = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random_states(state: Mapping[str, torch.Tensor]) -> None:
    """Inverse of `random_states`."""
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
