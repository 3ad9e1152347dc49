"""Scores of a predicted distribution from samples of it: energy score and calibration of the spread.

Pure functions on tensors. A model without a distribution is scored as one whose samples are all equal.
"""

from __future__ import annotations

import torch
from torch import Tensor

SAMPLES = 19
"""Of 19 samples of the true distribution and one observation, 18/20 fall between the outermost two, 10/20 between the
fifth from either end: the intervals below hold exactly what their names say."""

COVERAGES = {50: 4, 90: 0}
"""Nominal coverage in percent -> how many of the `SAMPLES` are outside the interval at either end."""


@torch.no_grad()
def energy_score(samples: Tensor, truth: Tensor) -> Tensor:
    """E|X - y| - E|X - X'| / 2 (Gneiting and Raftery 2007), mean over the batch: samples `[S, B, Z]`, truth `[B, Z]`.

    Strictly proper: the expected score is smallest for the true distribution. Distances are Euclidean, over the square
    root of Z. For one point it is the distance to the truth. The second expectation is over all pairs of different
    samples, so that few samples do not favour a narrow distribution.
    """
    count, _, width = samples.shape
    distance = (samples - truth).norm(dim=-1).mean()
    pairs = torch.cdist(samples.transpose(0, 1), samples.transpose(0, 1)).sum((1, 2)).mean() / (count * (count - 1))
    return (distance - pairs / 2) / width**0.5


@torch.no_grad()
def coverage(samples: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """`coverage_50` and `coverage_90`: share of true features within the central interval of `SAMPLES` samples.

    0.5 and 0.9 for a calibrated spread, less for one that is too narrow. samples `[SAMPLES, B, Z]`, truth `[B, Z]`.
    """
    if len(samples) != SAMPLES:
        raise ValueError(f"needs {SAMPLES} samples, got {len(samples)}")
    ordered = samples.sort(0).values
    return {
        f"coverage_{percent}": ((truth >= ordered[out]) & (truth <= ordered[-1 - out])).float().mean()
        for percent, out in COVERAGES.items()
    }
