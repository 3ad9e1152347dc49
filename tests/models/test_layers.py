"""Normed layers, SimNorm, initialisation and the exact parameter counts of both families."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from flowmbpo.models.activations import mish
from flowmbpo.models.actor import Actor
from flowmbpo.models.critic import Critic
from flowmbpo.models.dynamics import MLPDynamics
from flowmbpo.models.flow import FlowDynamics
from flowmbpo.models.heads import ScalarReward, TwoHotReward
from flowmbpo.models.layers import NormedLinear, NormedMLP, SimNorm, Standardize, check_groups, count_parameters
from flowmbpo.models.shortcut import ShortcutDynamics
from flowmbpo.models.world_model import Decoder, Encoder, WorldModel

FAMILIES = {
    "5M": {"units": (512, 512), "encoder_units": (256,), "latent_dim": 512},
    "48M": {"units": (1792, 1792), "encoder_units": (1792, 1792, 1792), "latent_dim": 768},
}
COUNTS = {
    "5M": {
        "encoder": 142_848,
        "mlp": 795_136,
        "endpoint": 795_648,
        "scalar": 531_969,
        "two_hot": 583_269,
        "world_model": 1_469_953,
        "actor": 307_716,
        "critic": 860_403,
    },
    "48M": {
        "encoder": 7_883_520,
        "mlp": 5_991_168,
        "endpoint": 5_992_960,
        "scalar": 4_614_401,
        "two_hot": 4_793_701,
        "world_model": 18_489_089,
        "actor": 410_116,
        "critic": 1_167_603,
    },
}


@pytest.mark.parametrize("family", FAMILIES)
def test_parameter_counts_are_the_published_ones(family: str) -> None:
    widths = FAMILIES[family]
    latent = widths["latent_dim"]
    sizes = {"latent_dim": latent, "action_dim": 8, "units": widths["units"], "activation": "mish"}
    encoder = Encoder(obs_dim=37, units=widths["encoder_units"], latent_dim=latent, simnorm_dim=8, activation="mish")
    mlp = MLPDynamics(**sizes, simnorm_dim=8, residual=False)

    def flow(velocity: str) -> FlowDynamics:
        return FlowDynamics(
            **sizes,
            simnorm_dim=8,
            integrator="heun",
            substeps=4,
            tau_sampling="uniform",
            velocity=velocity,
            residual=False,
            objective="matching",
        )

    built = {
        "encoder": encoder,
        "mlp": mlp,
        "endpoint": flow("endpoint"),
        "scalar": ScalarReward(**sizes),
        "two_hot": TwoHotReward(**sizes),
        "world_model": WorldModel(encoder=encoder, dynamics=mlp, reward_head=ScalarReward(**sizes)),
        "actor": Actor(
            latent_dim=latent,
            action_dim=8,
            units=(400, 200, 100),
            activation="mish",
            log_std_init=-1.0,
            log_std_min=-1.427,
        ),
        "critic": Critic(latent_dim=latent, units=(400, 200), activation="mish", ensemble=3),
    }
    assert {name: count_parameters(module) for name, module in built.items()} == COUNTS[family]
    # The free velocity has no normalisation on its last layer: 2 Z fewer, below 2% of the part.
    linear = count_parameters(flow("linear"))
    assert linear == COUNTS[family]["endpoint"] - 2 * latent
    shortcut = ShortcutDynamics(
        **sizes, simnorm_dim=8, integrator="euler", substeps=1, tau_sampling="uniform", residual=False
    )
    assert count_parameters(shortcut) == COUNTS[family]["endpoint"] + widths["units"][0]  # one more input: the step
    assert abs(linear / COUNTS[family]["endpoint"] - 1) < 0.02


def test_simnorm_is_a_softmax_over_each_group_of_consecutive_features() -> None:
    x = torch.randn(5, 4, 24)
    z = SimNorm(8)(x)
    assert z.shape == x.shape
    torch.testing.assert_close(z[2, 3, 8:16], x[2, 3, 8:16].exp() / x[2, 3, 8:16].exp().sum())
    torch.testing.assert_close(z.unflatten(-1, (3, 8)).sum(-1), torch.ones(5, 4, 3))


def test_simnorm_survives_huge_inputs_and_stays_exact_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        z = SimNorm(8)(torch.tensor([[1e4, -1e4, 0, 0, 0, 0, 0, 1e4]], dtype=torch.bfloat16))
    assert z.dtype == torch.float32
    torch.testing.assert_close(z, torch.tensor([[0.5, 0, 0, 0, 0, 0, 0, 0.5]]))


def test_context_is_the_concatenated_input_of_the_papers() -> None:
    layer = NormedLinear(6, 10, mish, context_features=3)
    x, context = torch.randn(4, 6), torch.randn(4, 3)
    weight = torch.cat((layer.linear.weight, layer.context.weight), 1)
    joint = F.linear(torch.cat((x, context), 1), weight, layer.linear.bias)
    torch.testing.assert_close(layer(x, context), F.mish(F.layer_norm(joint, (10,))))


def test_world_model_initialisation() -> None:
    mlp = MLPDynamics(latent_dim=512, action_dim=8, units=(512,), simnorm_dim=8, residual=False, activation="mish")
    weight = mlp.trunk.first.linear.weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert mlp.trunk.first.context.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not mlp.trunk.first.linear.bias.any()
    assert not ScalarReward(latent_dim=16, action_dim=2, units=(8,), activation="mish").last.weight.any()


def test_wrong_sizes_are_named() -> None:
    with pytest.raises(ValueError, match="multiple of 8, for example 96"):
        check_groups(100, 8)
    with pytest.raises(ValueError, match="at least one hidden layer"):
        NormedMLP(8, (), "mish")


def test_a_standardized_latent_has_mean_zero_and_unit_features_and_every_network_sees_it() -> None:
    z = SimNorm(8)(3 * torch.randn(500, 32))
    x = Standardize(8)(z)
    torch.testing.assert_close(x.unflatten(-1, (4, 8)).sum(-1), torch.zeros(500, 4), atol=1e-5, rtol=0)
    assert 0.5 < x.std() < 2.5
    assert x.min() >= -1
    sizes = {"latent_dim": 32, "units": (16,), "activation": "silu"}
    head = {**sizes, "action_dim": 3}
    action = torch.randn(500, 3)
    seen = {
        "actor": (Actor(**head, log_std_init=-1.0, log_std_min=-2.0, standardize=8), "mean_action", (z,)),
        "critic": (Critic(**sizes, ensemble=2, standardize=8), "values", (z,)),
        "reward": (ScalarReward(**head, standardize=8), "forward", (z, action)),
        "two_hot": (TwoHotReward(**head, standardize=8), "forward", (z, action)),
        "mlp": (MLPDynamics(**head, simnorm_dim=8, residual=True, standardize=8), "next", (z, action)),
        "decoder": (Decoder(**sizes, obs_dim=5, standardize=8), "forward", (z,)),
    }
    for name, (network, verb, arguments) in seen.items():
        inputs: list[torch.Tensor] = []
        first = next(m for m in network.modules() if isinstance(m, Standardize))
        first.register_forward_hook(lambda module, given, out, inputs=inputs: inputs.append(out))
        getattr(network, verb)(*arguments)
        torch.testing.assert_close(inputs[0], x, msg=name)
