"""An epoch never asks the host for a value: it runs on the meta device, whose tensors have a shape but no numbers.

Reading one (`item`, `nonzero`, a boolean mask, `if tensor`), copying one to the host, or mixing it with a host tensor
raises there. On a GPU each of these would wait for all the work queued so far, and none could be captured in a graph.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from flowmbpo.envs.contract import Step
from flowmbpo.spec.registry import load_registry
from flowmbpo.spec.schema import EnvSpec
from flowmbpo.training.builder import build_algorithm
from flowmbpo.training.episodes import EpisodeRecorder

REGISTRY = load_registry(Path(__file__).resolve().parents[1] / "experiments.toml")
META = torch.device("meta")
FEW = ["train.wm_updates=1", "train.wm_first_updates=2", "critic.passes=1", "actor.updates=1"]


class ShapesOnly:
    """An environment without numbers."""

    device, forward_velocity_index = META, None

    def __init__(self, spec: EnvSpec, num_envs: int) -> None:
        self.num_envs, self.obs_dim, self.action_dim = num_envs, spec.observation_dim, spec.action_dim

    def reset(self):
        return torch.zeros(self.num_envs, self.obs_dim, device=META)

    def step(self, actions):
        assert actions.device == META
        flags = torch.zeros(self.num_envs, dtype=torch.bool, device=META)
        return Step(self.reset(), flags.float(), flags, flags.clone(), self.reset())


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        *((name, []) for name in REGISTRY.names()),
        ("5M-baseline", ["train.imagination=from_visited", "critic.targets=real", "world_model.reward_head=two_hot"]),
        ("5M-flow-v3", ["world_model.velocity=shortcut", "world_model.substeps=1"]),
        ("quickstart", ["train.imagination=alongside", "critic.targets=imagined"]),
    ],
)
def test_every_phase_runs_without_a_value(name, overrides):
    spec = REGISTRY.resolve(name, [*FEW, *overrides]).spec
    with META:
        env = EpisodeRecorder(ShapesOnly(spec.env, spec.train.num_envs))
        algorithm = build_algorithm(spec, env, torch.Generator("cpu"))
    algorithm.collector.replay._held.add(spec.train.sequence_length)  # the one thing ever asked, until it is so
    ran = set()
    for epoch in (spec.train.warmup_epochs, spec.train.warmup_epochs + 1):
        algorithm.begin_epoch(epoch)
        for phase, run in algorithm.phases:
            statistics = run()
            assert all(value.device == META and value.ndim == 0 for value in statistics.values())
            ran |= {phase} if statistics else set()
    assert ran == {phase for phase, _ in algorithm.phases}
    assert algorithm.world_model_updates > 0
    assert all(parameter.device == META for parameter in algorithm.world_model.parameters())


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: bool(x.sum() > 0),
        lambda x: x + torch.ones(3),
        lambda x: x.cpu(),
    ],
)
def test_the_meta_device_notices_a_host_read(read):
    with pytest.raises((RuntimeError, NotImplementedError)):
        read(torch.zeros(3, device=META))
