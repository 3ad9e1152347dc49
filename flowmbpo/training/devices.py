"""Which device a run uses."""

from __future__ import annotations

from collections.abc import Callable

import torch

from flowmbpo.errors import UserError


def choose_device(wanted: str) -> str:
    """`cpu` or `cuda` for `auto`, `cpu` or `cuda`. Raises UserError when the wanted one is not there."""
    if wanted not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device {wanted}: allowed are auto, cpu and cuda")
    if wanted == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if wanted == "cuda":
        built = "has CUDA support but finds no usable GPU" if torch.version.cuda else "is a build without CUDA"
        raise UserError(
            f"--device cuda: no GPU can be used here (PyTorch {torch.__version__} {built}). "
            "Use --device cpu or auto, or start the run where a GPU is"
        )
    return "cpu"


def describe(device: str) -> str:
    """The device as a person names it."""
    return torch.cuda.get_device_name() if device == "cuda" else "cpu"


def synchronizer(device: str) -> Callable[[], None]:
    """Waits for the device, so that a phase's seconds are its own; nothing to wait for on a CPU."""
    return torch.cuda.synchronize if device == "cuda" else lambda: None
