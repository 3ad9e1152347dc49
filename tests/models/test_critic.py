"""The batched ensemble against its members one by one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from flowmbpo.models.critic import Critic


def small_critic() -> Critic:
    return Critic(latent_dim=16, units=(32, 24), activation="mish", ensemble=3)


def test_each_member_is_its_own_network() -> None:
    critic, z = small_critic(), torch.rand(7, 16)
    for p in critic.parameters():
        torch.nn.init.normal_(p, std=0.5)
    values = critic.values(z)
    for e in range(3):
        h = z
        for block in critic.trunk:
            h = F.mish(h @ block.linear.weight[e] + block.linear.bias[e, 0])
            h = F.layer_norm(h, h.shape[-1:], block.scale[e, 0], block.shift[e, 0])
        torch.testing.assert_close(values[e], (h @ critic.head.weight[e] + critic.head.bias[e, 0])[:, 0])


def test_any_batch_shape_and_the_minimum() -> None:
    critic, z = small_critic(), torch.rand(4, 5, 16)
    values = critic.values(z)
    assert values.shape == (3, 4, 5)
    torch.testing.assert_close(critic.values(z[1]), values[:, 1])
    assert torch.equal(critic.min(z), values.min(0).values)
    assert critic.min(z).shape == (4, 5)


def test_members_start_different_orthogonal_and_without_bias() -> None:
    critic = small_critic()
    weight = critic.trunk[0].linear.weight
    for member in weight:
        torch.testing.assert_close(member @ member.T, 2 * torch.eye(16), atol=1e-5, rtol=0)
    assert (weight[0] - weight[1]).abs().max() > 0.1
    assert not critic.trunk[0].linear.bias.any()


def test_a_gradient_stays_with_its_member() -> None:
    critic = small_critic()
    critic.values(torch.rand(7, 16))[1].sum().backward()
    for p in critic.parameters():
        assert p.grad[1].any()
        assert not p.grad[0].any()
        assert not p.grad[2].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_autocast(dtype: torch.dtype) -> None:
    critic, z = small_critic(), torch.rand(7, 16)
    with torch.autocast("cpu", dtype):
        values = critic.values(z)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, critic.values(z), atol=0.05, rtol=0.05)
