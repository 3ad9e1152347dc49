"""Every diagnostic on a case whose answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from flowmbpo.models.diagnostics import correlation, gradient_snr, open_loop_error, reward_fit, simplex_distance
from flowmbpo.models.dynamics import Dynamics
from flowmbpo.models.heads import ScalarReward
from flowmbpo.models.world_model import WorldModel
from tests.models.small_networks import SMALL, on_simplex


class Drift(Dynamics):
    """z' = z + first action component."""

    evaluations_per_step = 1

    def next(self, z: Tensor, action: Tensor) -> Tensor:
        return z + action[..., :1]

    def loss(self, z: Tensor, action: Tensor, z_target: Tensor, **_: object) -> Tensor:
        return (self.next(z, action) - z_target).square().mean(-1)


def test_open_loop_error_of_a_model_that_is_off_by_a_known_amount() -> None:
    model = WorldModel(encoder=nn.Identity(), dynamics=Drift(), reward_head=ScalarReward(**SMALL))
    actions = torch.full((16, 5, 3), 0.5)
    # In truth everything moves by 0.25 a step, the model says 0.5.
    obs = torch.arange(17.0).view(17, 1, 1) * 0.25 + torch.randn(1, 5, 32)
    found = open_loop_error(model, obs, actions)
    for h in (1, 4, 8, 16):
        assert found[f"latent_error_{h}"].item() == pytest.approx((0.25 * h) ** 2, rel=1e-4)
        assert found[f"latent_error_{h}_relative"].item() == pytest.approx(1.0, rel=1e-4)
    with pytest.raises(ValueError, match="horizon 16 needs"):
        open_loop_error(model, obs[:9], actions[:8])


def test_simplex_distance() -> None:
    assert simplex_distance(on_simplex(50, 32), 8).max() < 1e-6
    corner = torch.zeros(1, 16)
    corner[0, 0] = corner[0, 8] = 1.0
    torch.testing.assert_close(simplex_distance(corner, 8), torch.zeros(1))
    # Outside along the normal of the simplex: distance |shift| sqrt(8) in each of two groups.
    inside = torch.full((1, 16), 1 / 8)
    torch.testing.assert_close(simplex_distance(inside + 0.1, 8), torch.tensor([0.1 * 16**0.5]))
    # Beyond a corner: the corner is the nearest point.
    corner[0, 0] = 3.0
    torch.testing.assert_close(simplex_distance(corner, 8), torch.tensor([2.0]))


def test_correlation_and_bias() -> None:
    x = torch.randn(40, 3)
    assert correlation(3 * x + 2, x).item() == pytest.approx(1.0, abs=1e-5)
    assert correlation(-x, x).item() == pytest.approx(-1.0, abs=1e-5)
    assert correlation(torch.zeros(5), torch.randn(5)).item() == 0.0  # the dead head of defect reports
    fit = reward_fit(x + 0.5, x)
    assert fit["reward_bias"].item() == pytest.approx(0.5, abs=1e-6)


def test_gradient_snr_of_a_known_distribution() -> None:
    generator = torch.Generator().manual_seed(0)
    mean = torch.linspace(-1, 1, 1000)
    gradients = mean + 2 * torch.randn(64, 1000, generator=generator)
    assert gradient_snr(gradients).item() == pytest.approx((mean.square().sum() / 4000).item(), rel=0.1)
    assert gradient_snr(gradients - gradients.mean(0)).item() == 0.0
    assert gradient_snr(2 * torch.randn(8, 5000, generator=generator)).item() < 0.01
    with pytest.raises(ValueError, match=r"at least 2 groups"):
        gradient_snr(gradients[:1])
