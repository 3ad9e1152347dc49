"""Every Warp kernel of the package compiles for the GPUs of the cluster, without one: Warp brings NVIDIA's compiler."""

import ast
import importlib
from pathlib import Path
from typing import get_args

import pytest
import warp as wp

from flowmbpo.physics.runtime import start_warp

PACKAGE = Path(__file__).resolve().parents[1] / "flowmbpo"
ARCHITECTURES = {"L40S": 89, "H100": 90}


def _is_kernel(function: ast.FunctionDef) -> bool:
    return any(ast.unparse(mark).split("(")[0] in ("wp.kernel", "warp.kernel") for mark in function.decorator_list)


def kernels_in_source() -> dict[Path, set[str]]:
    """Names of the functions marked as kernels, by file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        names = {
            node.name
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.FunctionDef) and _is_kernel(node)
        }
        if names:
            found[path] = names
    return found


# Kernels that functions make, as a GPU uses them: one environment a thread.
MADE = {
    "ant_kernels": lambda module: [module.step_kernel(wp.float32, loaded) for loaded in (False, True)],
    "ant_gradients": lambda module: [
        make()
        for layout in get_args(module.Layout)
        for make in (module.kernels(layout, "cuda").step, module.kernels(layout, "cuda").vjp)
    ],
}


def kernels_of(path: Path) -> list[wp.Kernel]:
    """The kernels of a module: those at its top, and those that its functions make."""
    module = importlib.import_module(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))
    at_top = [item for item in vars(module).values() if isinstance(item, wp.Kernel)]
    made = MADE[path.stem](module) if path.stem in MADE else []
    return [kernel for kernel in (*at_top, *made) if kernel.func.__module__ == module.__name__]


SOURCE = kernels_in_source()


@pytest.mark.parametrize("path", SOURCE, ids=lambda path: path.stem)
def test_every_kernel_is_found(path):
    start_warp()
    assert {kernel.func.__name__ for kernel in kernels_of(path)} == SOURCE[path], (
        "say in MADE how the kernels that functions make are made for a GPU"
    )


@pytest.mark.parametrize("gpu", ARCHITECTURES)
@pytest.mark.parametrize("path", SOURCE, ids=lambda path: path.stem)
def test_every_kernel_compiles_for(path, gpu, tmp_path):
    start_warp()
    arch = ARCHITECTURES[gpu]
    for module in {kernel.module for kernel in kernels_of(path)}:
        folder = tmp_path / module.name
        wp.compile_aot_module(module, arch=arch, module_dir=folder, use_ptx=False)
        (binary,) = folder.glob(f"*.sm{arch}.cubin")
        assert binary.read_bytes()[:4] == b"\x7fELF"


def test_a_kernel_that_only_a_cpu_understands_is_noticed(tmp_path):
    from flowmbpo.envs.ant_kernels import step_kernel
    from flowmbpo.physics.lanes import Lanes

    start_warp()
    with pytest.raises(Exception, match="build"):
        wp.compile_aot_module(step_kernel(Lanes, False).module, arch=89, module_dir=tmp_path, use_ptx=False)
