"""The GPU side: its kernels compile everywhere, and where a GPU is present they run without host synchronisation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import warp as wp

from flowmbpo.envs import AntEnv, ant_kernels, disturbance_kernels
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
