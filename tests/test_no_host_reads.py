"""An epoch's phases ask the host for no value, except whether replay holds a sequence at all.

They run on the meta device, whose tensors have a shape but no numbers. Reading one (`item`, `nonzero`, a boolean mask,
`if tensor`), copying one to the host, or mixing it with a host tensor raises there; numbers that Python would copy to
the device are refused by `NoHostNumbers`. On a GPU each of these would wait for all the work queued so far, and none
could be captured in a graph. Networks, replay and optimisers are the real ones, in float32; the environment has no
numbers (`test_cuda` has the real one).
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.overrides import TorchFunctionMode

from flowmbpo.algorithms.replay import Choice
from flowmbpo.envs.contract import Step
from flowmbpo.spec.registry import load_registry
from flowmbpo.spec.schema import EnvSpec
from flowmbpo.training.builder import build, build_algorithm
from flowmbpo.training.episodes import EpisodeRecorder

REGISTRY = load_registry(Path(__file__).resolve().parents[1] / "experiments.toml")
META = torch.device("meta")
# A first, a middle and a last step of the horizon: the others do what the middle one does.
SHORT = ["train.horizon=3", "train.allow_short_horizon=true", "train.wm_sequence_length=3"]
FEW = ["train.wm_first_epoch=1", "train.wm_updates=1", "train.wm_first_updates=2", "critic.passes=1", "actor.updates=1"]


class ShapesOnly:
    """An environment without numbers."""

    device, forward_velocity_index = META, None

    def __init__(self, spec: EnvSpec, num_envs: int) -> None:
        self.num_envs, self.obs_dim, self.action_dim = num_envs, spec.observation_dim, spec.action_dim
        self.episode_length = spec.episode_length

    def reset(self):
        return torch.zeros(self.num_envs, self.obs_dim, device=META)

    def step(self, actions):
        assert actions.device == META
        flags = torch.zeros(self.num_envs, dtype=torch.bool, device=META)
        return Step(self.reset(), flags.float(), flags, flags.clone(), self.reset())


class NoHostNumbers(TorchFunctionMode):
    """Refuses what copies from the host: assigning a Python number at indices, and tensors made of Python values."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.__setitem__:
            assert isinstance(args[2], torch.Tensor), f"a number of the host is assigned: {args[2]}"
        assert func not in (torch.tensor, torch.as_tensor, torch.from_numpy), func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        # The simulator as a world model runs kernels, which know no device without values.
        *((name, []) for name in REGISTRY.names() if REGISTRY.resolve(name).spec.world_model.kind != "simulator"),
        ("5M-baseline", ["train.imagination=from_visited", "critic.targets=real", "world_model.reward_head=two_hot"]),
        ("5M-flow-v3", ["world_model.velocity=shortcut", "world_model.objective=matching", "world_model.substeps=1"]),
        ("quickstart", ["train.imagination=alongside", "critic.targets=imagined"]),
        ("quickstart", ["critic.ensemble=1"]),  # whose gradients are by hand
    ],
)
def test_every_phase_runs_without_a_value(monkeypatch, name, overrides):
    spec = REGISTRY.resolve(name, [*FEW, *SHORT, *overrides]).spec
    with META:
        env = EpisodeRecorder(ShapesOnly(spec.env, spec.train.num_envs))
        algorithm = build_algorithm(spec, env, torch.Generator("cpu"))
    monkeypatch.setattr(Choice, "empty", False)  # the one thing that is asked
    ran = set()
    for epoch in (spec.train.warmup_epochs, spec.train.warmup_epochs + 1):
        algorithm.begin_epoch(epoch)
        for phase, run in algorithm.phases:
            with NoHostNumbers():
                statistics = run()
            assert all(value.device == META and value.ndim == 0 for value in statistics.values())
            ran |= {phase} if statistics else set()
    assert ran == {phase for phase, _ in algorithm.phases}
    assert algorithm.model_learner.updates > 0
    assert all(parameter.device == META for parameter in algorithm.world_model.parameters())


def test_assigning_a_number_is_noticed():
    x = torch.zeros(3, device=META)
    with NoHostNumbers(), pytest.raises(AssertionError, match="of the host"):
        x[torch.zeros(1, dtype=torch.long, device=META)] = 1.0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_is_never_waited_for(monkeypatch):
    algorithm = build(REGISTRY.resolve("mini-flow-v1", FEW).spec, 0, "cuda").algorithm
    run_epoch = [run for _, run in algorithm.phases]
    for epoch in range(algorithm.train.warmup_epochs + 1):
        algorithm.begin_epoch(epoch)
        for run in run_epoch:
            run()
    monkeypatch.setattr(Choice, "empty", False)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for run in run_epoch:
            run()
    finally:
        torch.cuda.set_sync_debug_mode("default")


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
    with pytest.raises(RuntimeError, match="meta"):
        read(torch.zeros(3, device=META))
