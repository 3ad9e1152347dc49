"""Models of a distribution: what they learn where the next state is not certain, and that they draw reproducibly."""

from __future__ import annotations

import pytest
import torch

from flowmbpo.models.distributions import LOG_STD, EnsembleDynamics, GaussianDynamics
from flowmbpo.models.dynamics import Dynamics, MLPDynamics
from flowmbpo.models.noise_flow import NoiseFlowDynamics
from flowmbpo.models.scores import SAMPLES, coverage, energy_score
from tests.models.small_networks import on_simplex

SIZES = {"latent_dim": 4, "action_dim": 2, "units": (64, 64), "activation": "silu"}
ON_OBSERVATIONS = {"simnorm_dim": None, "residual": True}


def noise_flow(*, shortcut: bool = False, integrator: str = "euler", substeps: int = 8, **sizes) -> NoiseFlowDynamics:
    return NoiseFlowDynamics(
        **{**SIZES, **ON_OBSERVATIONS, **sizes},
        integrator=integrator,
        substeps=substeps,
        tau_sampling="uniform",
        shortcut=shortcut,
    )


def every_distribution() -> list[Dynamics]:
    return [
        noise_flow(),
        noise_flow(integrator="heun", substeps=2),
        noise_flow(shortcut=True, substeps=1),
        GaussianDynamics(**SIZES),
        EnsembleDynamics(**SIZES, **ON_OBSERVATIONS, members=3),
    ]


def two_modes(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """z' = z + (a_1, 0, ...) +- 1 in every feature at once: two equally likely futures, 2 apart, narrow (0.05)."""
    z = torch.randn(count, 4, generator=generator)
    action = 2 * torch.rand(count, 2, generator=generator) - 1
    mode = torch.randint(2, (count, 1), generator=generator) * 2.0 - 1
    shift = torch.cat((action[:, :1], torch.zeros(count, 3)), 1)
    return z, action, z + shift + mode + 0.05 * torch.randn(count, 4, generator=generator)


def fit(dynamics: Dynamics, updates: int = 400) -> Dynamics:
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(dynamics.parameters(), 2e-3)
    for update in range(updates):
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - update / updates)
        z, action, target = two_modes(256, generator)
        loss = dynamics.loss(z, action, target, generator=generator).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return dynamics


@torch.no_grad()
def position(dynamics: Dynamics) -> torch.Tensor:
    """Of 2,000 samples between the modes, which lie at -1 and 1: `[2000, 4]`."""
    z, action, _ = two_modes(2000, torch.Generator().manual_seed(1))
    drawn = dynamics.sample(z, action, torch.Generator().manual_seed(2)) - z
    drawn[:, 0] -= action[:, 0]
    return drawn


def shares(drawn: torch.Tensor) -> tuple[float, float, float]:
    """Of samples at the lower mode, at the upper one (all features within 0.4 of it), and elsewhere."""
    low, high = (((drawn - mode).abs() < 0.4).all(1).float().mean().item() for mode in (-1.0, 1.0))
    return low, high, 1 - low - high


def test_a_noise_flow_puts_its_mass_on_both_modes_where_an_mlp_says_the_middle():
    torch.manual_seed(0)
    low, high, elsewhere = shares(position(fit(noise_flow())))
    assert low > 0.35
    assert high > 0.35
    assert elsewhere < 0.15
    assert position(fit(MLPDynamics(**SIZES, **ON_OBSERVATIONS))).abs().mean() < 0.2


def test_a_gaussian_covers_both_modes_but_puts_most_of_its_mass_elsewhere():
    torch.manual_seed(0)
    drawn = position(fit(GaussianDynamics(**SIZES)))
    torch.testing.assert_close(drawn.std(0), torch.ones(4), rtol=0.15, atol=0.0)
    assert shares(drawn)[2] > 0.8


def test_one_long_step_of_a_shortcut_finds_both_modes():
    torch.manual_seed(0)
    low, high, elsewhere = shares(position(fit(noise_flow(shortcut=True, substeps=1), updates=800)))
    assert low > 0.2
    assert high > 0.2
    assert elsewhere < 0.6


def test_the_energy_score_prefers_the_true_distribution():
    generator = torch.Generator().manual_seed(0)
    z, action, truth = two_modes(4000, generator)
    shift = torch.cat((action[:, :1], torch.zeros(4000, 3)), 1)

    def score(noise: torch.Tensor) -> float:
        return energy_score(z + shift + noise, truth).item()

    signs = torch.randint(2, (SAMPLES, 4000, 1), generator=generator) * 2.0 - 1
    true = score(signs + 0.05 * torch.randn(SAMPLES, 4000, 4, generator=generator))
    gaussian = score(torch.randn(SAMPLES, 4000, 4, generator=generator))
    middle = score(torch.zeros(SAMPLES, 4000, 4))
    one_mode = score(torch.ones(SAMPLES, 4000, 4))
    assert middle == pytest.approx(1.0, rel=0.01)  # the distance to either mode, over sqrt(4)
    assert true == pytest.approx(0.5, rel=0.05)  # E|X - y| = 1, E|X - X'| / 2 = 1/2
    assert true < gaussian < middle <= one_mode + 0.05


def test_coverage_is_nominal_for_the_true_distribution_and_zero_for_a_point():
    generator = torch.Generator().manual_seed(0)
    samples, truth = torch.randn(SAMPLES, 5000, 3, generator=generator), torch.randn(5000, 3, generator=generator)
    calibrated, narrow = coverage(samples, truth), coverage(0.3 * samples, truth)
    assert calibrated["coverage_50"].item() == pytest.approx(0.5, abs=0.02)
    assert calibrated["coverage_90"].item() == pytest.approx(0.9, abs=0.02)
    assert narrow["coverage_90"] < 0.5
    assert coverage(torch.zeros(SAMPLES, 10, 3), truth[:10])["coverage_90"] == 0
    with pytest.raises(ValueError, match="needs 19 samples, got 5"):
        coverage(samples[:5], truth)


@pytest.mark.parametrize("index", range(len(every_distribution())))
def test_samples_are_reproducible_differ_and_pass_gradients(index):
    torch.manual_seed(0)
    dynamics = every_distribution()[index]
    assert dynamics.stochastic
    z, action = torch.randn(3, 6, 4, requires_grad=True), torch.randn(3, 6, 2, requires_grad=True)
    if isinstance(dynamics, EnsembleDynamics):
        for parameter in dynamics.parameters():
            torch.nn.init.normal_(parameter, std=0.3)

    def draw(seed: int) -> torch.Tensor:
        return dynamics.sample(z, action, torch.Generator().manual_seed(seed))

    assert draw(1).shape == z.shape
    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    assert torch.equal(dynamics.next(z, action), dynamics.next(z, action))
    gradients = torch.autograd.grad(draw(1).square().sum(), (z, action))
    assert all(gradient.abs().sum() > 0 for gradient in gradients)
    assert dynamics.loss(z, action, z.detach() + 0.1, generator=torch.Generator().manual_seed(0)).shape == (3, 6)


def test_one_euler_step_without_a_shortcut_is_the_mean_whatever_the_noise():
    torch.manual_seed(0)
    dynamics = fit(noise_flow(substeps=1), updates=300)
    assert position(dynamics).std(0).max() < 0.4


@pytest.mark.parametrize(("integrator", "substeps"), [("euler", 1), ("heun", 4), ("rk4", 2)])
def test_samples_of_a_simplex_latent_stay_on_it(integrator, substeps):
    torch.manual_seed(0)
    dynamics = noise_flow(latent_dim=32, simnorm_dim=8, residual=False, integrator=integrator, substeps=substeps)
    z = on_simplex(5, 32)
    drawn = dynamics.sample(z, torch.randn(5, 2), torch.Generator().manual_seed(0)).unflatten(-1, (4, 8))
    torch.testing.assert_close(drawn.sum(-1), torch.ones(5, 4))
    assert drawn.min() >= 0


def test_the_spread_follows_the_change_and_is_saved_with_the_weights():
    dynamics = noise_flow()
    z = torch.zeros(64, 4)
    for _ in range(1000):
        dynamics.loss(z, torch.zeros(64, 2), z + torch.tensor([0.0, 0.1, 1.0, 3.0]))
    torch.testing.assert_close(dynamics.spread, torch.tensor([1e-4, 0.1, 1.0, 3.0]), atol=2e-4, rtol=1e-3)
    dynamics.loss(z, torch.zeros(64, 2), z + torch.nan)  # the update is refused by the optimiser; the spread stays too
    assert dynamics.spread.isfinite().all()
    other = noise_flow()
    other.load_state_dict(dynamics.state_dict())
    assert torch.equal(other.spread, dynamics.spread)


def test_a_scheme_can_be_changed_where_there_is_one():
    flow = noise_flow(integrator="heun", substeps=4)
    assert flow.evaluations_per_step == 8
    flow.set_scheme("euler", 2)
    assert flow.evaluations_per_step == 2
    with pytest.raises(ValueError, match="it has no substeps"):
        GaussianDynamics(**SIZES).set_scheme("euler", 2)
    with pytest.raises(ValueError, match="1, 2 or 4 steps of 'euler'"):
        noise_flow(shortcut=True, substeps=1).set_scheme("heun", 2)


def test_the_deviation_of_a_gaussian_is_bounded():
    dynamics = GaussianDynamics(**SIZES)
    torch.nn.init.constant_(dynamics.log_std_head.bias, 1e6)
    assert dynamics.moments(torch.zeros(2, 4), torch.zeros(2, 2))[1].max() == LOG_STD[1]
    torch.nn.init.constant_(dynamics.log_std_head.bias, -1e6)
    assert dynamics.moments(torch.zeros(2, 4), torch.zeros(2, 2))[1].min() == LOG_STD[0]
