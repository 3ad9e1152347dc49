"""Every Warp kernel of the package compiles for the GPUs of the cluster, without one: Warp brings NVIDIA's compiler."""

import ast
import importlib
import inspect
from pathlib import Path

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


def kernels_of(path: Path) -> list[wp.Kernel]:
    """The kernels of a module as a GPU uses them: those at its top, and what its functions `-> wp.Kernel` make of one
    float a thread."""
    module = importlib.import_module(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))
    found = []
    for item in vars(module).values():
        function = inspect.unwrap(item) if callable(item) else item
        if isinstance(item, wp.Kernel):
            found.append(item)
        elif inspect.isfunction(function) and inspect.get_annotations(function).get("return") in (
            wp.Kernel,
            "wp.Kernel",
        ):
            found.append(item(wp.float32))
    return [kernel for kernel in found if kernel.func.__module__ == module.__name__]


SOURCE = kernels_in_source()


@pytest.mark.parametrize("path", SOURCE, ids=lambda path: path.stem)
def test_every_kernel_is_found(path):
    start_warp()
    assert {kernel.func.__name__ for kernel in kernels_of(path)} == SOURCE[path], (
        "a kernel stands at the top of its module, or in a function `-> wp.Kernel` of the type of a number"
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
        wp.compile_aot_module(step_kernel(Lanes).module, arch=89, module_dir=tmp_path, use_ptx=False)
