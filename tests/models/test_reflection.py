"""A policy that is its own mirror image, and the Ant's mirror image against the simulator."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from flowmbpo.envs import ant_observation, ant_reflection, ant_step
from flowmbpo.models.actor import Actor
from flowmbpo.models.reflection import Reflection
from flowmbpo.spec.registry import load_registry
from flowmbpo.training.builder import build_normalizers

ANT = Reflection(ant_reflection.OBSERVATION, ant_reflection.ACTION)


def observations_of(count: int) -> Tensor:
    return torch.randn(count, 37, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def actor() -> Actor:
    torch.manual_seed(1)
    sizes = {"latent_dim": 37, "action_dim": 8, "units": (16, 16), "activation": "silu"}
    actor = Actor(**sizes, log_std_init=-1.0, log_std_min=-5.0, reflection=ANT)
    torch.nn.init.normal_(actor.mean.weight, std=0.3)
    torch.nn.init.normal_(actor.mean.bias)
    return actor


def test_the_image_of_an_image_is_what_it_shows() -> None:
    x = observations_of(4)
    assert torch.equal(ANT.observation(ANT.observation(x)), x)
    assert torch.equal(ANT.action(ANT.action(x[:, :8])), x[:, :8])


@pytest.mark.parametrize("grad", [True, False])
def test_in_the_mirror_the_policy_acts_as_its_image(actor: Actor, grad: bool) -> None:
    z = observations_of(6)
    with torch.set_grad_enabled(grad):
        image = actor.mean_action(ANT.observation(z))
        torch.testing.assert_close(image, ANT.action(actor.mean_action(z)))
        assert not torch.allclose(image, actor.mean_action(z))


def test_gradients_by_hand_are_those_of_autograd(actor: Actor) -> None:
    z, weights = observations_of(6).requires_grad_(), torch.randn(6, 8)
    mean, pull_back = actor.linearized(z.detach())
    expected = actor.mean_before_tanh(z)
    torch.testing.assert_close(mean, expected)
    (gradient,) = torch.autograd.grad((expected * weights).sum(), z)
    torch.testing.assert_close(pull_back(weights), gradient)


def test_normalised_observations_reflect_as_raw_ones_do() -> None:
    spec = load_registry(Path(__file__).resolve().parents[2] / "experiments.toml").resolve("shac-quick").spec
    observations, _ = build_normalizers(spec, torch.device("cpu"))
    observations.update(3.0 * observations_of(50) + 1.0)
    x = observations_of(6)
    torch.testing.assert_close(observations(ANT.observation(x)), ANT.observation(observations(x)))


def reflected_state(q: Tensor, qd: Tensor) -> tuple[Tensor, Tensor]:
    """z -> -z of position and velocity; a rotation's axis is a pseudovector."""
    x, y, z, *quaternion = q[:, :7].unbind(1)
    position = torch.stack([x, y, -z, *(-part for part in reversed(quaternion))], 1)
    twist = qd[:, :6] * torch.tensor([-1, -1, 1, 1, 1, -1])
    return torch.cat([position, ANT.action(q[:, 7:])], 1), torch.cat([twist, ANT.action(qd[:, 6:])], 1)


def states(count: int) -> tuple[Tensor, Tensor]:
    """Tilted, moving and with bent legs, some of them on the ground."""
    generator = torch.Generator().manual_seed(3)
    random = torch.randn(count, 29, generator=generator)
    q = torch.tensor([0, 0.45, 0, -(0.5**0.5), 0, 0, 0.5**0.5, 0, 1, 0, -1, 0, -1, 0, 1]).repeat(count, 1)
    q = q + 0.1 * random[:, :15]
    q[:, 3:7] /= q[:, 3:7].norm(dim=1, keepdim=True)
    return q, random[:, 15:]


def test_the_simulator_agrees_with_the_image() -> None:
    q, qd = states(32)
    actions = torch.rand(32, 8, generator=torch.Generator().manual_seed(4)) * 2 - 1
    image = reflected_state(q, qd)
    observed = ant_observation(q, qd, actions)
    torch.testing.assert_close(ant_observation(*image, ANT.action(actions)), ANT.observation(observed))
    after, after_image = ant_step(q, qd, actions)[:2], ant_step(*image, ANT.action(actions))[:2]
    for expected, found, before in zip(reflected_state(*after), after_image, image, strict=True):
        # the torso's inertia is not quite symmetric in the reference
        assert (found - expected).abs().max() < 0.03 * (expected - before).abs().max()
