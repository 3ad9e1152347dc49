"""The contract of every dynamics, and what distinguishes the flow's parametrisations."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from flowmbpo.models.diagnostics import simplex_distance
from flowmbpo.models.dynamics import Dynamics, MLPDynamics, move_on_simplex
from flowmbpo.models.flow import sample_tau
from flowmbpo.models.integrators import INTEGRATORS
from flowmbpo.models.shortcut import ShortcutDynamics
from tests.models.small_networks import SMALL, every_dynamics, flow, mlp, on_simplex, shortcut

KINDS = range(len(every_dynamics()))


def shake(module: torch.nn.Module, scale: float) -> None:
    """Large random weights: predictions far from the centre of the simplex."""
    for p in module.parameters():
        torch.nn.init.normal_(p, std=scale)


def fit(dynamics: Dynamics, z: Tensor, action: Tensor, target: Tensor, steps: int) -> float:
    """Train on one batch; the final one-step error over the error of predicting no change."""
    optimiser = torch.optim.Adam(dynamics.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        optimiser.zero_grad()
        dynamics.loss(z, action, target, generator=generator).mean().backward()
        optimiser.step()
    with torch.no_grad():
        error = (dynamics.next(z, action) - target).square().mean()
    return (error / (z - target).square().mean()).item()


@pytest.mark.parametrize("kind", KINDS)
def test_both_verbs_take_any_batch_shape(kind: int) -> None:
    dynamics = every_dynamics()[kind]
    z, target, action = on_simplex(5, 4, 32), on_simplex(5, 4, 32), torch.randn(5, 4, 3)
    whole = dynamics.next(z, action)
    assert whole.shape == z.shape
    torch.testing.assert_close(whole[2], dynamics.next(z[2], action[2]))
    assert dynamics.loss(z, action, target).shape == (5, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_given_prediction_changes_no_loss(kind: int) -> None:
    dynamics = every_dynamics()[kind]
    z, target, action = on_simplex(6, 32), on_simplex(6, 32), torch.randn(6, 3)
    losses = [
        dynamics.loss(z, action, target, z_next=z_next, generator=torch.Generator().manual_seed(3))
        for z_next in (None, dynamics.next(z, action))
    ]
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("kind", KINDS)
def test_the_global_random_state_is_never_used(kind: int) -> None:
    dynamics = every_dynamics()[kind]
    z, target, action = on_simplex(6, 32), on_simplex(6, 32), torch.randn(6, 3)
    before = torch.random.get_rng_state()
    first = dynamics.loss(z, action, target, generator=torch.Generator().manual_seed(3))
    again = dynamics.loss(z, action, target, generator=torch.Generator().manual_seed(3))
    dynamics.next(z, action)
    assert torch.equal(first, again)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_match_finite_differences(kind: int) -> None:
    dynamics = every_dynamics()[kind].double()
    shake(dynamics, 0.3)
    # Inside the simplex: a logarithm bends too much beside its edge for a difference of 1e-6.
    z, target = on_simplex(2, 32).double().lerp(torch.tensor(1 / 8).double(), 0.1), on_simplex(2, 32).double()
    z.requires_grad_()
    action = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(dynamics.next, (z, action))
    if isinstance(dynamics, ShortcutDynamics):
        return  # its consistency loss has targets without gradient: below, by hand
    assert torch.autograd.gradcheck(
        lambda z, a: dynamics.loss(z, a, target, generator=torch.Generator().manual_seed(3)), (z, action)
    )


@pytest.mark.parametrize(
    "dynamics", [mlp(), flow("linear"), flow("endpoint"), shortcut()], ids=["mlp", "linear", "endpoint", "shortcut"]
)
def test_it_learns_a_batch_of_transitions(dynamics: Dynamics) -> None:
    z, action = on_simplex(64, 32), torch.randn(64, 3)
    assert fit(dynamics, z, action, on_simplex(64, 32), steps=300) < 0.3


def test_mlp_loss_is_the_squared_error_of_its_prediction() -> None:
    dynamics = mlp()
    z, target, action = on_simplex(6, 32), on_simplex(6, 32), torch.randn(6, 3)
    expected = (dynamics.next(z, action) - target).pow(2).sum(-1) / 32
    torch.testing.assert_close(dynamics.loss(z, action, target), expected)


@pytest.mark.parametrize("velocity", ["linear", "endpoint"])
def test_the_velocity_fits_a_target_that_sums_to_zero(velocity: str) -> None:
    # A velocity that ends in SimNorm is non-negative with sum 1 per group, its error here stays above 1/8 per group.
    dynamics = flow(velocity, tau_sampling="midpoint")
    z, action, target = on_simplex(32, 32), torch.randn(32, 3), on_simplex(32, 32)
    assert (target - z).unflatten(-1, (-1, 8)).sum(-1).abs().max() < 1e-5
    fit(dynamics, z, action, target, steps=400)
    middle = torch.lerp(z, target, 0.5)
    found = dynamics.velocity(middle, action, torch.full((32, 1), 0.5), z)
    explained = 1 - (found - (target - z)).square().mean() / (target - z).square().mean()
    assert explained > 0.95


@pytest.mark.parametrize("integrator", INTEGRATORS)
@pytest.mark.parametrize("substeps", [1, 2, 4, 8])
def test_sixteen_steps_of_the_endpoint_flow_stay_on_the_simplex(integrator: str, substeps: int) -> None:
    dynamics = flow("endpoint", integrator=integrator, substeps=substeps)
    shake(dynamics, 1.0)
    z = on_simplex(16, 32)
    with torch.no_grad():
        for _ in range(16):
            z = dynamics.next(z, torch.randn(16, 3))
    assert z.min() >= 0
    assert simplex_distance(z, 8).max() < 1e-5


@pytest.mark.parametrize("integrator", INTEGRATORS)
def test_every_stage_of_the_endpoint_flow_is_on_the_simplex(integrator: str) -> None:
    dynamics = flow("endpoint", integrator=integrator, substeps=2)
    shake(dynamics, 1.0)
    stages: list[Tensor] = []
    dynamics.velocity.trunk.register_forward_pre_hook(lambda module, inputs: stages.append(inputs[0]))
    with torch.no_grad():
        dynamics.next(on_simplex(16, 32), torch.randn(16, 3))
    assert len(stages) == dynamics.evaluations_per_step
    assert all(stage.min() >= 0 and simplex_distance(stage, 8).max() < 1e-5 for stage in stages)


def test_the_linear_flow_may_leave_the_simplex_and_the_distance_says_so() -> None:
    dynamics = flow("linear", integrator="euler", substeps=8)
    shake(dynamics, 0.5)
    z = on_simplex(16, 32)
    with torch.no_grad():
        for _ in range(16):
            z = dynamics.next(z, torch.randn(16, 3))
    assert z.isfinite().all()
    assert simplex_distance(z, 8).min() > 0.1


def test_shortcut_consistency_compares_one_step_with_two_halves() -> None:
    dynamics = shortcut()
    shake(dynamics, 0.5)
    z, target, action = on_simplex(64, 32), on_simplex(64, 32), torch.randn(64, 3)
    seen: list[Tensor] = []
    dynamics.velocity.trunk.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1][:, 3:]))
    error = dynamics.consistency(z, action, target, torch.Generator().manual_seed(0))
    (first, second, whole), tau, step = seen, seen[2][:, :1], seen[2][:, 1:]
    assert set(step.flatten().tolist()) == {0.25, 0.5, 1.0}
    torch.testing.assert_close(second[:, :1], tau + step / 2)
    assert torch.equal(first[:, :1], whole[:, :1])
    torch.testing.assert_close(first[:, 1:], torch.where(step > 0.25, step / 2, 0.0))
    assert (tau + step).max() <= 1

    def move(at: Tensor, condition: Tensor, length: Tensor) -> Tensor:
        return at + length * dynamics.velocity(at, action, condition, z)

    start = torch.lerp(z, target, tau)
    two = move(move(start, first, step / 2), second, step / 2)
    torch.testing.assert_close(error, ((move(start, whole, step) - two) / step).square().mean(-1))


def test_shortcut_consistency_is_paid_by_a_share_without_bias_and_moves_no_latent() -> None:
    dynamics = shortcut()
    shake(dynamics, 0.3)
    z, target, action = on_simplex(8, 32).requires_grad_(), on_simplex(8, 32), torch.randn(8, 3)
    generator = torch.Generator().manual_seed(2)
    loss = dynamics.loss(z, action, target, generator=torch.Generator().manual_seed(2))
    tau = sample_tau("uniform", action, generator)
    velocity = dynamics.velocity(torch.lerp(z, target, tau), action, torch.cat((tau, 0 * tau), 1), z)
    matching = (velocity - target + z).square().mean(-1)
    extra = dynamics.consistency(z[:2].detach(), action[:2], target[:2], generator)
    torch.testing.assert_close(loss[2:], matching[2:])
    torch.testing.assert_close(loss[:2], matching[:2] + 4 * extra)
    torch.testing.assert_close(
        torch.autograd.grad(loss.sum(), z, retain_graph=True), torch.autograd.grad(matching.sum(), z)
    )


def test_a_shortcut_takes_euler_steps_of_trained_lengths() -> None:
    for integrator, substeps in (("heun", 1), ("euler", 3)):
        with pytest.raises(ValueError, match="1, 2 or 4 steps of 'euler'"):
            shortcut(integrator=integrator, substeps=substeps)
    dynamics = shortcut(substeps=4)
    shake(dynamics, 1.0)
    z = on_simplex(16, 32)
    with torch.no_grad():
        for _ in range(16):
            z = dynamics.next(z, torch.randn(16, 3))
    assert simplex_distance(z, 8).max() < 1e-5


def test_the_matching_loss_is_computed_on_the_straight_line() -> None:
    dynamics = flow("linear", tau_sampling="midpoint")
    z, target, action = on_simplex(6, 32), on_simplex(6, 32), torch.randn(6, 3)
    half = torch.full((6, 1), 0.5)
    velocity = dynamics.velocity((z + target) / 2, action, half, z)
    torch.testing.assert_close(dynamics.loss(z, action, target), (velocity - target + z).pow(2).mean(-1))


def test_tau_is_uniform_or_one_half_or_early() -> None:
    action = torch.zeros(20_000, 3)
    uniform = sample_tau("uniform", action, torch.Generator().manual_seed(0))
    assert uniform.shape == (20_000, 1)
    assert 0 <= uniform.min() < 0.001
    assert 0.999 < uniform.max() < 1
    assert uniform.std().item() == pytest.approx(12**-0.5, rel=0.02)
    assert torch.equal(sample_tau("midpoint", action, None), torch.full((20_000, 1), 0.5))
    early = sample_tau("early", action, torch.Generator().manual_seed(0))
    assert (early == 0).float().mean().item() == pytest.approx(7 / 8, abs=0.02)
    assert early[early > 0].mean().item() == pytest.approx(0.5, abs=0.02)
    assert early.max() < 1


def observation_dynamics(*, residual: bool) -> MLPDynamics:
    return MLPDynamics(**SMALL, simnorm_dim=None, residual=residual)


@pytest.mark.parametrize("residual", [False, True])
def test_dynamics_of_an_observation_latent(residual: bool) -> None:
    dynamics = observation_dynamics(residual=residual)
    z, action = 2 * torch.randn(64, 32), torch.randn(64, 3)
    if residual:
        assert (dynamics.next(z, action) - z).abs().max() < 0.1
    assert fit(dynamics, z, action, z + 0.3 * torch.randn(64, 32), steps=500) < 0.3


def test_an_end_point_needs_a_simplex() -> None:
    with pytest.raises(ValueError, match="choose 'linear'"):
        flow("endpoint", simnorm_dim=None)
    z = torch.randn(6, 32)
    assert flow("linear", simnorm_dim=None).next(z, torch.randn(6, 3)).shape == z.shape


RESIDUAL = {
    "mlp": mlp(residual=True),
    "shortcut": shortcut(residual=True),
    **{
        f"{integrator}-{substeps}": flow("endpoint", integrator=integrator, substeps=substeps, residual=True)
        for integrator in INTEGRATORS
        for substeps in (1, 2, 8)
    },
}


@pytest.mark.parametrize("kind", RESIDUAL)
def test_a_logit_residual_starts_near_the_identity_and_is_it_with_a_zero_head(kind: str) -> None:
    dynamics = copy.deepcopy(RESIDUAL[kind])
    head = dynamics.head if isinstance(dynamics, MLPDynamics) else dynamics.velocity.head
    z, action = on_simplex(64, 32), torch.randn(64, 3)
    assert (dynamics.next(z, action) - z).abs().max() < 0.02  # as it is initialised
    torch.nn.init.zeros_(head.weight)
    torch.testing.assert_close(dynamics.next(z, action), z, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", RESIDUAL)
def test_sixteen_steps_of_a_logit_residual_stay_on_the_simplex(kind: str) -> None:
    dynamics = copy.deepcopy(RESIDUAL[kind])
    shake(dynamics, 1.0)
    z = on_simplex(16, 32)
    with torch.no_grad():
        for _ in range(16):
            z = dynamics.next(z, torch.randn(16, 3))
    assert z.min() >= 0
    assert simplex_distance(z, 8).max() < 1e-5


def test_a_feature_that_vanished_can_come_back() -> None:
    z = torch.tensor([[1.0, 0.0]])
    assert move_on_simplex(z, torch.tensor([[-20.0, 20.0]]), 2)[0, 1] > 0.99


def test_what_a_flow_learns_from() -> None:
    z, target, action = on_simplex(6, 32), on_simplex(6, 32), torch.randn(6, 3)
    losses = {}
    for objective in ("matching", "prediction", "both"):
        torch.manual_seed(0)
        dynamics = flow("endpoint", tau_sampling="midpoint", objective=objective)
        losses[objective] = dynamics.loss(z, action, target)
    error = (dynamics.next(z, action) - target).square().mean(-1)
    torch.testing.assert_close(losses["prediction"], error)
    torch.testing.assert_close(losses["both"], losses["matching"] + error)


def test_evaluations_per_step() -> None:
    assert mlp().evaluations_per_step == 1
    assert flow("linear", integrator="heun", substeps=4).evaluations_per_step == 8
    assert flow("linear", integrator="euler", substeps=8).evaluations_per_step == 8
    assert flow("linear", integrator="rk4", substeps=2).evaluations_per_step == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"velocity": "cubic"}, "linear, endpoint"),
        ({"tau_sampling": "beta"}, "uniform, midpoint"),
        ({"integrator": "leapfrog"}, "euler, heun, rk4"),
        ({"objective": "score"}, "matching, prediction, both"),
    ],
)
def test_an_unknown_choice_names_the_known_ones(change: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        flow(**{"velocity": "linear", **change})
