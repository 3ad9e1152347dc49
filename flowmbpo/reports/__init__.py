"""What it means: statistics, comparison, plots, replays and reports. Reads runs, writes files; trains nothing."""

from flowmbpo.reports.comparison import Comparison, compare

__all__ = ["Comparison", "compare"]
