"""Samples the load of machine and process; names as in MLflow's "System metrics" tab.

MLflow's own sampler is not used: it asks the store for the run after every sample, ends for good when the store once
does not answer, and counts samples instead of environment steps.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil

_MB = 1e6


class SystemSampler:
    """Reads CPU, memory and disk through psutil, and NVIDIA GPUs where their driver's Python binding is installed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = psutil.Process()
        psutil.cpu_percent()  # the first reading only starts the measurement
        self._gpus = _gpu_handles()

    def sample(self) -> dict[str, float]:
        """Metric name to value."""
        memory = psutil.virtual_memory()
        values = {
            "system/cpu_utilization_percentage": psutil.cpu_percent(),
            "system/system_memory_usage_megabytes": memory.used / _MB,
            "system/system_memory_usage_percentage": memory.percent,
            "system/process_memory_megabytes": self._process.memory_info().rss / _MB,
        }
        with contextlib.suppress(OSError):  # the folder went away: the writing of checkpoints reports that
            values["system/disk_available_megabytes"] = psutil.disk_usage(str(self._folder)).free / _MB
        for index, handle in enumerate(self._gpus):
            values |= _gpu_values(index, handle)
        return values


def _gpu_handles() -> list[object]:
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
        return [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []


def _gpu_values(index: int, handle: object) -> dict[str, float]:
    import pynvml

    try:
        return {
            f"system/gpu_{index}_utilization_percentage": float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu),
            f"system/gpu_{index}_memory_usage_megabytes": pynvml.nvmlDeviceGetMemoryInfo(handle).used / _MB,
        }
    except pynvml.NVMLError:
        return {}
