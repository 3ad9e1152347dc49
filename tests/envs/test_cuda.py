"""The GPU side: its kernels compile everywhere, and where a GPU is present they run without host synchronisation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import warp as wp

from flowmbpo.envs import AntEnv, ant_kernels, ant_step, disturbance_kernels
from flowmbpo.envs.ant_gradients import simulate
from flowmbpo.physics.runtime import start_warp

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.mark.parametrize(("arch", "loaded"), [(80, False), (90, False), (90, True)])
def test_step_kernel_compiles_for_a_gpu_that_is_not_here(arch, loaded, tmp_path: Path):
    """NVRTC comes with Warp, so a kernel that CUDA would refuse is found on any machine."""
    start_warp()
    wp.compile_aot_module(ant_kernels.step_kernel(wp.float32, loaded).module, arch=arch, module_dir=tmp_path)
    assert any(path.suffix in (".cubin", ".ptx") and path.stat().st_size > 1000 for path in tmp_path.iterdir())


def test_disturbance_kernels_compile_for_a_gpu_that_is_not_here(tmp_path: Path):
    start_warp()
    wp.compile_aot_module(disturbance_kernels, arch=90, module_dir=tmp_path)
    assert any(path.suffix in (".cubin", ".ptx") and path.stat().st_size > 1000 for path in tmp_path.iterdir())


@needs_gpu
def test_gpu_follows_the_cpu():
    on_gpu, on_cpu = AntEnv(64, device="cuda", seed=3), AntEnv(64, device="cpu", seed=3)
    torch.testing.assert_close(on_gpu.reset().cpu(), on_cpu.reset(), atol=1e-6, rtol=1e-6)
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        action = 2 * torch.rand(64, 8, generator=generator) - 1
        torch.testing.assert_close(on_gpu.step(action.cuda()).obs.cpu(), on_cpu.step(action).obs, atol=2e-4, rtol=2e-4)


@needs_gpu
def test_step_neither_waits_nor_allocates_and_can_be_captured():
    env = AntEnv(128, device="cuda")
    env.reset()
    action = torch.zeros(128, 8, device="cuda")
    env.step(action)
    torch.cuda.synchronize()
    allocated = torch.cuda.memory_allocated()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(10):
            env.step(action)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.cuda.memory_allocated() == allocated
    saved = env.state_dict()
    want = [env.step(action).obs.clone() for _ in range(3)][-1]
    env.load_state_dict(saved)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = env.step(action)
    env.load_state_dict(saved)
    for _ in range(3):
        graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(captured.obs, want)


def _gradients(layout: str, device: str) -> list[torch.Tensor]:
    """Results of one control step from running states, and the gradients of a loss on them, on the host."""
    env = AntEnv(64, seed=3)
    env.reset()
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        obs = env.step(2 * torch.rand(64, 8, generator=generator) - 1).obs
    actions = 2 * torch.rand(64, 8, generator=generator) - 1
    given = (*env.get_state(), actions) if layout == "coordinates" else (torch.cat((obs, actions), 1),)
    given = tuple(tensor.to(device).requires_grad_() for tensor in given)
    results = ant_step(*given) if layout == "coordinates" else (simulate(given[0], layout, 16),)
    loss = sum((result * (torch.rand(result.shape, generator=generator) - 0.5).to(device)).sum() for result in results)
    return [tensor.detach().cpu() for tensor in (*results, *torch.autograd.grad(loss, given))]


@needs_gpu
@pytest.mark.parametrize("layout", ["coordinates", "observation"])
def test_gradients_of_a_gpu_are_those_of_the_cpu(layout):
    for on_gpu, on_cpu in zip(_gradients(layout, "cuda"), _gradients(layout, "cpu"), strict=True):
        error = (on_gpu - on_cpu).norm(dim=1) / on_cpu.norm(dim=1).clamp_min(1e-6)
        assert error.median() < 1e-4
        assert error.quantile(0.9) < 1e-2  # a contact may be found on one side and not on the other
