"""Which device a run uses."""

from __future__ import annotations

import ctypes
import platform
import resource

import psutil
import torch

from flowmbpo.errors import UserError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


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


def limit_threads(cpus: int) -> None:
    """Compute with at most `cpus` threads (of the CPUs that an experiment asks for), as a job on a cluster does.

    Threads that wait for each other at every small operation are many times slower where the machine is shared.
    """
    torch.set_num_threads(min(cpus, torch.get_num_threads()))


def describe(device: str) -> str:
    """The device as a person names it."""
    return torch.cuda.get_device_name() if device == "cuda" else "cpu"


def reuse_freed_memory() -> None:
    """Have glibc keep large freed blocks instead of handing each back and fetching it anew, page by page.

    An update frees and allocates the same few hundred megabytes of activations again and again; the page faults cost
    more than the arithmetic on them. Other C libraries are left alone.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        # Older versions refuse more than 32 MB. With a limit refused, the other one would only make things worse.
        if libc.mallopt(_M_MMAP_THRESHOLD, 2**30) or libc.mallopt(_M_MMAP_THRESHOLD, 2**25):
            libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def peak_memory(device: str) -> dict[str, float]:
    """Highest memory so far, MB: resident on the host, and allocated on the GPU where that is the device."""
    resident = psutil.Process().memory_info().rss / 2**20
    peak = {"perf/peak_rss_mb": max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, resident)}
    if device == "cuda":
        peak["perf/peak_gpu_memory_mb"] = torch.cuda.max_memory_allocated() / 2**20
    return peak
