"""Every experiment of the shipped registry builds its real networks, with the parameter counts that `show` tells."""

from pathlib import Path

import pytest
import torch
from torch import nn

from flowmbpo.algorithms.measurement import dynamics_evaluations
from flowmbpo.algorithms.normalizers import ObservationNormalizer, Scale
from flowmbpo.spec.estimates import estimate
from flowmbpo.spec.parameters import count_parameters
from flowmbpo.spec.registry import load_registry
from flowmbpo.training.builder import build, build_actor, build_critic, build_world_model

NOISE = ["world_model.source=noise", "world_model.velocity=endpoint", "world_model.loss_states=encoded"]
REGISTRY = load_registry(Path(__file__).resolve().parents[1] / "experiments.toml")

NO_LATENT = ["world_model.step=absolute", "world_model.latent_input=raw", "world_model.decoder_units=[]"]


def size(module: nn.Module | None) -> int:
    return sum(parameter.numel() for parameter in module.parameters()) if module is not None else 0


def compare(spec):
    env = spec.env
    observations = ObservationNormalizer(env.observation_dim, torch.device("cpu"), enabled=True, limit=8.0)
    model = build_world_model(spec, observations, Scale("none", torch.device("cpu")))
    counts = count_parameters(spec)
    built = {
        "encoder": size(model.encoder),
        "dynamics": size(model.dynamics),
        "reward": size(model.reward_head),
        "continuation": size(model.continuation_head),
        "decoder": size(model.decoder),
        "actor": size(build_actor(spec, env.action_dim)),
        "critics": size(build_critic(spec)),
        "world_model": size(model) - size(model.continuation_head) - size(model.decoder),
    }
    assert built == {part: count for part, count in counts.as_dict().items() if part != "total"}
    assert counts.total == size(model) + built["actor"] + built["critics"]


@pytest.mark.parametrize("name", REGISTRY.names())
def test_counts_of_real_networks(name):
    compare(REGISTRY.resolve(name).spec)


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("5M-flow-v2", ["world_model.velocity=linear", "world_model.step=absolute"]),
        (
            "5M-flow-v2",
            [
                *NO_LATENT,
                "world_model.velocity=linear",
                "world_model.encoder=observation",
                "world_model.encoder_units=[]",
                "world_model.latent_dim=37",
            ],
        ),
        (
            "5M-baseline",
            [
                *NO_LATENT,
                "world_model.encoder=observation",
                "world_model.encoder_units=[]",
                "world_model.latent_dim=37",
            ],
        ),
        ("5M-baseline", ["world_model.step=logit_residual", "world_model.decoder_units=[64, 32]"]),
        ("5M-flow-v2", ["world_model.step=logit_residual", "world_model.decoder_units=[64]"]),
        ("mini-baseline", ["world_model.reward_head=two_hot"]),
        ("noisy-ensemble", ["world_model.members=3"]),
        ("noisy-flow-4", NOISE),
        ("5M-flow-v2", [*NOISE, "world_model.objective=matching"]),
        (
            "mini-flow-v2",
            [*NOISE, "env.hidden_velocities=true", "env.observation_stack=2", "world_model.latent_dim=46"],
        ),
        ("mini-baseline", ["world_model.continuation_units=[32, 16]"]),
        ("mini-baseline", ["critic.ensemble=5", "actor.units=[24]", "critic.units=[24, 16, 8]"]),
    ],
)
def test_counts_of_variants(name, overrides):
    compare(REGISTRY.resolve(name, overrides).spec)


@pytest.mark.parametrize("kind", ["ant", "pointmass"])
def test_sizes_of_the_environments(kind):
    from flowmbpo.envs import make_env

    spec = next(s for s in (REGISTRY.resolve(n).spec.env for n in REGISTRY.names()) if s.kind == kind)
    env = make_env(num_envs=2, seed=0, device="cpu", **spec.model_dump())
    assert (env.obs_dim, env.action_dim) == (spec.observation_dim, spec.action_dim)


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("quickstart", []),
        ("pointmass", []),
        ("mini-flow-v2", []),
        ("5M-flow-v3", []),
        ("5M-flow-v3", ["world_model.velocity=shortcut", "world_model.objective=matching", "world_model.substeps=1"]),
        ("mini-baseline", ["world_model.loss_states=encoded"]),
        ("noisy-ensemble", []),
        ("noisy-flow-2", []),
    ],
)
def test_the_learner_evaluates_its_dynamics_as_often_as_show_says(name, overrides):
    spec = REGISTRY.resolve(name, overrides).spec
    assert dynamics_evaluations(build(spec, 0, "cpu").algorithm) == estimate(spec).dynamics_evaluations
