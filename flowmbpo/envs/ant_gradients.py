"""The Ant's control step as a differentiable Torch function, and the kernels behind it.

Not an environment: no resets, no termination, no clipping of the action, no random numbers. `AntEnv` collects data and
neither compiles nor pays for anything here.
"""

# mypy: disable-error-code="valid-type,no-untyped-def,untyped-decorator,operator"
# No `from __future__ import annotations`: Warp reads the types of its functions.
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Literal, NamedTuple, TypeVar

import torch
import warp as wp
from torch import Tensor
from torch.autograd.function import FunctionCtx

from flowmbpo.envs import ant_kernels as task
from flowmbpo.envs.contract import check_whole
from flowmbpo.physics import ant, lanes
from flowmbpo.physics.differentiable import ROWS, vec3
from flowmbpo.physics.formulas import Struct, flatten, interpret
from flowmbpo.physics.kernels_ant import ANGLES, HEIGHT, OMEGA, PX, PZ, QUATERNION, RATES, STATE_ROWS, VELOCITY
from flowmbpo.physics.runtime import start_warp
from flowmbpo.physics.step_source import step_source
from flowmbpo.physics.tracing import Graph, Number, Result, Segment

T = TypeVar("T")  # a number: an expression, or a tensor of one per environment
Layout = Literal["coordinates", "observation"]
_RATES = slice(RATES - HEIGHT, RATES - HEIGHT + ant.NUM_ACTIONS)  # of the observation
_OBS = int(task.OBS_DIM)
_UPRIGHT = int(task.UPRIGHT - HEIGHT)
FALLEN_HEIGHT = float(task.FALLEN_HEIGHT)  # m
_MIN_GROUPS_PER_THREAD = 4


def ant_step(
    joint_q: Tensor, joint_qd: Tensor, action: Tensor, mass_matrix_interval: int = ant.SUBSTEPS
) -> tuple[Tensor, Tensor, Tensor]:
    """One control step of 1/60 s: joint_q (N, 15), joint_qd (N, 14) and the observation (N, 37) after it.

    joint_q (N, 15), joint_qd (N, 14), action (N, 8): float32 on one device, in the order of `AntEnv.get_state`. The
    action is not clipped. Differentiable once with respect to all three; the derivative at a kink (contact, hinge
    limit, friction cap) is that of the inactive side. Raises ValueError for wrong shapes, types, devices and for
    numbers that are not finite.
    """
    check_whole("mass_matrix_interval", mass_matrix_interval, 1, ant.SUBSTEPS)
    _check_state(joint_q=(joint_q, ant.NUM_Q), joint_qd=(joint_qd, ant.NUM_QD), action=(action, ant.NUM_ACTIONS))
    result = simulate(torch.cat((joint_q, joint_qd, action), 1), "coordinates", mass_matrix_interval)
    next_q, next_qd, obs = result.split((ant.NUM_Q, ant.NUM_QD, _OBS), 1)
    return next_q, next_qd, obs


def ant_observation(joint_q: Tensor, joint_qd: Tensor, last_action: Tensor) -> Tensor:
    """The observation (N, 37) of states in the order of `AntEnv.get_state`; differentiable. Errors as of `ant_step`."""
    _check_state(
        joint_q=(joint_q, ant.NUM_Q), joint_qd=(joint_qd, ant.NUM_QD), last_action=(last_action, ant.NUM_ACTIONS)
    )
    numbers = torch.cat((joint_q, joint_qd, last_action), 1).unbind(1)
    arithmetic = SimpleNamespace(root=torch.sqrt, maximum=torch.maximum, minimum=torch.minimum, nearest=torch.round)
    return torch.stack(flatten(_observation(arithmetic, _rows(arithmetic, list(numbers)))), 1)


def simulate(given: Tensor, layout: Layout, interval: int) -> Tensor:
    """A control step of (N, inputs) -> (N, outputs) float32, differentiable once; nothing is checked.

    "coordinates": joint_q, joint_qd and action -> joint_q, joint_qd and observation. "observation": observation and
    action -> observation, of an Ant that stands above the origin of the plane, on which nothing else depends.
    """
    result: Tensor = _Simulate.apply(given, layout, interval)
    return result


def simulate_vjp(given: Tensor, cotangent: Tensor, layout: Layout, interval: int) -> Tensor:
    """What `simulate(given, ...)` makes of a cotangent (N, outputs): (N, inputs)."""
    result = torch.empty_like(given)
    _launch(kernels(layout, given.device.type).vjp(), interval, given, cotangent.contiguous(), result)
    return result


def prepare(layout: Layout, device: torch.device) -> None:
    """Compile what `simulate` and its gradient need, or fetch it from the cache, before anybody waits for them."""
    given = torch.zeros(1, kernels(layout, device.type).inputs, device=device, requires_grad=True)
    torch.autograd.grad(simulate(given, layout, ant.SUBSTEPS).sum(), given)


def reward_of(obs: Tensor) -> Tensor:
    """The reward `[...]` that is paid for a step from this observation `[..., 37]`; differentiable."""
    return (obs * _reward_weights(obs.device)).sum(-1) - FALLEN_HEIGHT


@functools.cache
def _reward_weights(device: torch.device) -> Tensor:
    weights = dict.fromkeys((0, VELOCITY - HEIGHT, _UPRIGHT + 1), 1.0) | {_UPRIGHT: float(task.UPRIGHT_WEIGHT)}
    return torch.tensor([weights.get(entry, 0.0) for entry in range(_OBS)], device=device)


class _Given(FunctionCtx):
    layout: Layout
    interval: int
    saved_tensors: tuple[Tensor]


class _Simulate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Given, given: Tensor, layout: Layout, interval: int) -> Tensor:
        given = given.contiguous()
        ctx.save_for_backward(given)
        ctx.layout, ctx.interval = layout, interval
        made = kernels(layout, given.device.type)
        result = given.new_empty(len(given), made.outputs)
        _launch(made.step(), interval, given, result)
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: _Given, cotangent: Tensor) -> tuple[Tensor, None, None]:
        (given,) = ctx.saved_tensors
        return simulate_vjp(given, cotangent, ctx.layout, ctx.interval), None, None


def _launch(kernel: wp.Kernel, interval: int, *arrays: Tensor) -> None:
    """One thread per group; on a CPU in as many pieces as Torch has threads."""
    given = arrays[0]
    values = [len(given), interval, *(array.data_ptr() for array in arrays)]
    if given.device.type == "cuda":
        stream = wp.stream_from_torch(torch.cuda.current_stream(given.device))
        _run(_recorded(kernel, 0, len(given), str(given.device)), values, stream)
        return
    groups = math.ceil(len(given) / lanes.WIDTH)
    threads = max(1, min(torch.get_num_threads(), groups // _MIN_GROUPS_PER_THREAD))
    edges = [groups * thread // threads for thread in range(threads + 1)]
    launches = [_recorded(kernel, first, last - first, "cpu") for first, last in itertools.pairwise(edges)]
    others = [_helpers().submit(_run, launch, values) for launch in launches[1:]]
    _run(launches[0], values)
    for other in others:
        other.result()


@functools.lru_cache(maxsize=256)
def _recorded(kernel: wp.Kernel, first: int, threads: int, device: str) -> wp.Launch:
    """A launch whose further arguments are set when it is used: that costs a tenth of launching anew."""
    arguments = [first] + [0] * (len(kernel.adj.args) - 1)
    return wp.launch(kernel, threads, arguments, device=device, block_dim=32, record_cmd=True, record_tape=False)


def _run(launch: wp.Launch, values: list[int], stream: wp.Stream | None = None) -> None:
    for index, value in enumerate(values):
        launch.set_param_at_index_from_ctype(1 + index, value)
    launch.launch(stream)


@functools.cache
def _helpers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor()


class Kernels(NamedTuple):
    inputs: int
    outputs: int
    step: Callable[[], wp.Kernel]  # each makes its kernel at its first call
    vjp: Callable[[], wp.Kernel]


@functools.cache
def kernels(layout: Layout, device: str) -> Kernels:
    start_warp()
    formulas: dict[Layout, tuple[Callable[..., Result], Callable[..., Result]]] = {
        "coordinates": (_rows, _coordinates),
        "observation": (_rows_observed, _observation),
    }
    load, store = formulas[layout]
    inputs = ant.NUM_ACTIONS + {"coordinates": ant.NUM_Q + ant.NUM_QD, "observation": _OBS}[layout]
    segments = Segment("load", load, {"x": inputs}), Segment("store", store, {"rows": ROWS})
    source = step_source(*segments, lanes.WIDTH if device == "cpu" else 1)
    return Kernels(
        inputs,
        segments[1].outputs,
        functools.cache(lambda: step_kernel(source)),
        functools.cache(lambda: vjp_kernel(source)),
    )


def step_kernel(source: str) -> wp.Kernel:
    """Addresses of given (N, inputs) and result (N, outputs)."""

    @wp.func_native(source + "Ant::step(group, count, interval, (const float*)given, (float*)result);")
    def native(group: int, count: int, interval: int, given: wp.uint64, result: wp.uint64): ...

    @wp.kernel(enable_backward=False, module="unique", module_options=task.COMPILER)
    def ant_step(first: int, count: int, interval: int, given: wp.uint64, result: wp.uint64):
        native(first + wp.tid(), count, interval, given, result)

    return ant_step


def vjp_kernel(source: str) -> wp.Kernel:
    """Addresses of given (N, inputs), cotangent (N, outputs) and result (N, inputs)."""
    call = "Ant::step_vjp(group, count, interval, (const float*)given, (const float*)cotangent, (float*)result);"

    @wp.func_native(source + call)
    def native(group: int, count: int, interval: int, given: wp.uint64, cotangent: wp.uint64, result: wp.uint64): ...

    @wp.kernel(enable_backward=False, module="unique", module_options=task.COMPILER)
    def ant_step_vjp(first: int, count: int, interval: int, given: wp.uint64, cotangent: wp.uint64, result: wp.uint64):
        native(first + wp.tid(), count, interval, given, cotangent, result)

    return ant_step_vjp


def _rows(arithmetic: object, x: Sequence[T]) -> tuple[T | Struct, ...]:
    """joint_q, joint_qd, action -> ROWS. The reference's v is that of the body point at the world's origin."""
    q, (w, v, rates), action = x[:15], (x[15:18], x[18:21], x[21:29]), x[29:]
    p = vec3(q[:3])
    velocity = vec3(v) + interpret(lanes.cross, arithmetic)(vec3(w), p)
    return p.x, p.z, p.y, *q[3:7], velocity, *w, *q[7:], *rates, *action


def _coordinates(graph: Graph, rows: list[Number]) -> Result:
    """ROWS -> joint_q, joint_qd, observation."""
    p, w = vec3([rows[PX], rows[HEIGHT], rows[PZ]]), rows[OMEGA : OMEGA + 3]
    v = vec3(rows[VELOCITY : VELOCITY + 3]) - interpret(lanes.cross, graph)(vec3(w), p)
    q = (p, *rows[QUATERNION:VELOCITY], *rows[ANGLES:RATES])
    return *q, *w, v, *rows[RATES:STATE_ROWS], _observation(graph, rows)


def _rows_observed(graph: Graph, x: list[Number]) -> Result:
    """Observation, action -> ROWS."""
    obs, action = x[:_OBS], x[_OBS:]
    rates = [(1.0 / task.RATE_SCALE) * rate for rate in obs[_RATES]]
    return 0.0, 0.0, *obs[: _RATES.start], *rates, *action


def _observation(arithmetic: object, rows: Sequence[T | Struct]) -> tuple[T, ...]:
    """ROWS -> observation."""
    numbers: list[T] = flatten(tuple(rows))
    pose = (numbers[PX], numbers[PZ], numbers[HEIGHT], *numbers[QUATERNION : VELOCITY + 1])
    upright, heading, _ = interpret(task.describe, arithmetic)(*pose)
    rates = [task.RATE_SCALE * rate for rate in numbers[RATES:STATE_ROWS]]
    return *numbers[HEIGHT:RATES], *rates, upright, heading, *numbers[STATE_ROWS:]


def _check_state(**tensors: tuple[Tensor, int]) -> None:
    (first, _), *_ = tensors.values()
    for name, (tensor, columns) in tensors.items():
        if tensor.dim() != 2 or tensor.shape != (len(first), columns):
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}; expected ({len(first)}, {columns})")
        if tensor.dtype != torch.float32 or tensor.device != first.device:
            raise ValueError(
                f"{name} is {tensor.dtype} on {tensor.device}; expected torch.float32 on {first.device}, as the others"
            )
        finite = torch.isfinite(tensor).all(1)
        if not finite.all():
            row = int(torch.nonzero(~finite)[0])
            raise ValueError(f"{name} has a number that is not finite, first in row {row}: it has no successor")
