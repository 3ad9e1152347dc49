"""Measures training on this machine: seconds per phase, memory, and how near the phases are to their matrix products.

`gemm_efficiency` of a phase is the time that its matrix products alone take, measured in the same process with plain
products of the same shapes and types, over the phase's real time. 1 would mean that nothing else costs anything.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Iterable

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from flowmbpo.algorithms.contract import Algorithm
from flowmbpo.data_types import Document
from flowmbpo.spec.schema import Experiment
from flowmbpo.training import builder
from flowmbpo.training.clock import PhaseClock
from flowmbpo.training.devices import describe, limit_threads, peak_memory

Product = tuple[tuple[int, ...], tuple[int, ...], torch.dtype]  # shapes of the two factors
_OPERANDS = {"mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1, "_addmm_activation": 1}
_REPEATS = 3


class ProductCounter(TorchDispatchMode):
    """Counts the matrix products that run inside it, those of the backward pass included."""

    def __init__(self) -> None:
        super().__init__()
        self.products: Counter[Product] = Counter()

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: object,
        args: tuple[Tensor, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        first = _OPERANDS.get(func.overloadpacket.__name__)
        if first is not None:
            a, b = args[first], args[first + 1]
            self.products[tuple(a.shape), tuple(b.shape), a.dtype] += 1
        return func(*args, **(kwargs or {}))


def measure_training(experiment: Experiment, device: str, epochs: int) -> Document:
    """Train `epochs` epochs after those that warm up (the experiment's own, and one more) and report medians.

    Returns a document of plain numbers: seconds per epoch and phase, environment steps per second, peak memory in MB,
    multiply-adds per epoch, the seconds of the products alone and the efficiency, in total and per phase.
    """
    # The many first updates of the world model are no part of an epoch.
    train = experiment.train.model_copy(update={"wm_first_updates": experiment.train.wm_updates})
    warm_up = train.warmup_epochs + 1
    limit_threads(experiment.resources.cpus)
    built = builder.build(experiment.model_copy(update={"train": train}), 0, device)
    clock = PhaseClock(device)
    seconds: dict[str, list[float]] = {}
    for epoch in range(warm_up + epochs):
        clock.start()
        built.algorithm.begin_epoch(epoch)
        for name, phase in built.algorithm.phases:
            phase()
            clock.lap(name)
        for name, spent in clock.stop().items():
            if epoch >= warm_up:
                seconds.setdefault(name, []).append(spent)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    products = _count_products(built.algorithm, warm_up + epochs)
    ideal = {name: _seconds_alone(found, device) for name, found in products.items()}
    work = {name: _flop(found) / 1e9 for name, found in products.items()}
    epoch_seconds = median.pop("epoch")
    peak = peak_memory(device)
    return {
        "name": experiment.name,
        "device": describe(device),
        "threads": torch.get_num_threads(),
        "precision": experiment.train.precision,
        "epochs": epochs,
        "epoch_seconds_median": epoch_seconds,
        "phase_seconds": median,
        "env_steps_per_second": built.algorithm.env_steps_per_epoch / epoch_seconds,
        "gemm_seconds": sum(ideal.values()),
        "gemm_efficiency": sum(ideal.values()) / epoch_seconds,
        "phase_gemm_efficiency": {name: ideal[name] / median[name] for name in ideal},
        "gigaflop_per_epoch": sum(work.values()),
        "phase_gigaflop": work,
        "peak_rss_mb": peak["perf/peak_rss_mb"],
        "peak_device_mb": peak.get("perf/peak_gpu_memory_mb", 0.0),
    }


def _count_products(algorithm: Algorithm, epoch: int) -> dict[str, Counter[Product]]:
    found = {}
    algorithm.begin_epoch(epoch)
    for name, phase in algorithm.phases:
        with ProductCounter() as counter:
            phase()
        found[name] = counter.products
    return found


def _flop(products: Counter[Product]) -> float:
    return sum(2.0 * count * _size(a) * b[-1] for (a, b, _), count in products.items())


def _size(shape: Iterable[int]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def _seconds_alone(products: Counter[Product], device: str) -> float:
    """Seconds of the products by themselves: the best of a few repeats of each shape, times how often it occurred."""
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    total = 0.0
    for (a_shape, b_shape, dtype), count in products.items():
        a = torch.randn(a_shape, device=device).to(dtype)
        b = torch.randn(b_shape, device=device).to(dtype)
        inner = max(1, min(count, 20))
        best = float("inf")
        for _ in range(_REPEATS):
            synchronize()
            begin = time.perf_counter()
            for _ in range(inner):
                torch.matmul(a, b)
            synchronize()
            best = min(best, (time.perf_counter() - begin) / inner)
        total += best * count
    return total
