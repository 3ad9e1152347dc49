"""One seed of a run, split into independent seeds for everything that draws random numbers."""

from __future__ import annotations

import numpy as np


class Seeds:
    """Seeds derived from a run's seed; neighbouring run seeds give unrelated streams (NumPy's SeedSequence)."""

    def __init__(self, seed: int) -> None:
        words = np.random.SeedSequence(seed).generate_state(3, dtype=np.uint64)
        self.networks, self.environment, self.algorithm = (int(word >> 1) for word in words)  # signed 63 bits
