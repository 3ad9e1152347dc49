"""Measures of a model's gradient against a truth that is known by hand."""

from __future__ import annotations

import pytest
import torch

from flowmbpo.algorithms import gradient_truth
from flowmbpo.algorithms.gradient_truth import HORIZONS, compare_gradients, gradients, measure_truth, rank_correlation

GAMMA = 0.9


class Line:
    """z' = z + slope a, reward sum(z): d return_h / d a_j = slope * sum_{k=j+1..h} gamma^(k-1)."""

    def __init__(self, slope: float) -> None:
        self.slope = slope

    def next(self, z, action):
        return z + self.slope * action

    def reward(self, z, action):
        return z.sum(-1)


def test_gradients_by_hand():
    found = gradients(Line(2.0), torch.zeros(3, 2), torch.randn(17, 3, 2), GAMMA)
    assert [found[h].shape for h in HORIZONS] == [(3, 2 * h) for h in HORIZONS]
    want = [2.0 * sum(GAMMA ** (k - 1) for k in range(j + 1, 5)) for j in range(4)]
    torch.testing.assert_close(found[4][0].view(4, 2), torch.tensor(want)[:, None].expand(4, 2))


def test_cosine_length_and_rank_by_hand():
    own, true = torch.tensor([[3.0, 4.0], [0.0, 2.0]]), torch.tensor([[6.0, 8.0], [2.0, 0.0]])
    cosine, length = compare_gradients(own, true)
    assert cosine.tolist() == pytest.approx([1.0, 0.0])
    assert length.tolist() == pytest.approx([0.5, 1.0])
    a = torch.tensor([[1.0, 1.0], [2.0, 2.0], [10.0, 3.0]])
    assert rank_correlation(a, torch.tensor([[0.0, 9.0], [5.0, 5.0], [6.0, 1.0]])).tolist() == pytest.approx(
        [1.0, -1.0]
    )


@pytest.mark.parametrize(("slope", "cosine", "length", "rank"), [(1.0, 1, 1, 1), (3.0, 1, 3, 1), (-0.5, -1, 0.5, -1)])
def test_a_model_with_the_right_a_stretched_and_a_wrong_slope(slope, cosine, length, rank):
    z, actions = torch.zeros(gradient_truth.STATES, 8), 0.1 * torch.randn(17, gradient_truth.STATES, 8)
    metrics = measure_truth(
        Line(slope),
        Line(1.0),
        (z, z),
        actions,
        reward_scale=torch.ones(()),
        gamma=GAMMA,
        generator=torch.Generator().manual_seed(0),
    )
    for h in HORIZONS:
        assert metrics[f"gradient_cosine_{h}"] == pytest.approx(cosine)
        assert metrics[f"gradient_length_{h}_q25"] == pytest.approx(length)
        assert metrics[f"return_rank_{h}"] == pytest.approx(rank)
