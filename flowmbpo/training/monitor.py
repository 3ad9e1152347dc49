"""Notices a policy that collapsed; decides nothing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class CollapseMonitor:
    """R far below its peak for long. `R` is the mean over the last finished episodes, one value per logged point.

    A collapse is announced when R stays below `share` of its peak for `patience` points in a row, once per fall;
    R must climb back above `share` before another can be announced. Peaks below `floor` are noise, not success.
    """

    share: float = 0.5
    patience: int = 20
    floor: float = 300.0
    peak: float = float("-inf")
    below: int = 0

    def observe(self, reward: float) -> bool:
        """Take in one value; True at the moment at which a collapse is established."""
        self.peak = max(self.peak, reward)
        if self.peak < self.floor or reward >= self.share * self.peak:
            self.below = 0
            return False
        self.below += 1
        return self.below == self.patience

    def state_dict(self) -> dict[str, float | int]:
        return {"peak": self.peak, "below": self.below}

    def load_state_dict(self, state: dict[str, float | int]) -> None:
        self.peak = float(state["peak"])
        self.below = int(state["below"])
