"""C source of one control step and of its vector-Jacobian product, generated from the formulas of `kernels_*`.

Nothing is stored between forward and backward pass: the product recomputes the substeps, keeps their states, and
sweeps back. The derivative of the mass matrix is part of it, also while the matrix is cached. Observation and reward
are not known here: `step_source` is given the segments that load and store the rows of the state.
"""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

from flowmbpo.physics import ant, kernels_ant, kernels_leg, kernels_mass, lanes
from flowmbpo.physics.kernels_ant import ANGLES, HEIGHT, OMEGA, PX, PZ, QUATERNION, RATES, STATE_ROWS, VELOCITY
from flowmbpo.physics.tracing import Graph, Segment, interpret, rebuild, size

TORSO = size(kernels_ant.empty_torso)
HINGES = 4  # of a leg: hip, ankle and their rates
BODY = TORSO + ant.NUM_LEGS * HINGES
MOTION = 13  # w, v, a, e and height of the torso, as `leg_wrench` takes them
WRENCH = 6
TORQUES = 2 * ant.NUM_LEGS
BLOCK = size(kernels_leg.empty_root_block)
FACTOR = size(kernels_leg.empty_leg_factor)
INVERSE = size(kernels_mass.empty_root_inverse)
FACTORS = INVERSE + ant.NUM_LEGS * FACTOR
START = BODY + TORQUES + 4  # body, motor torques, world up in anchor axes, height
ROWS = STATE_ROWS + ant.NUM_ACTIONS  # state and action
_SIZES = ("TORSO", "HINGES", "BODY", "MOTION", "WRENCH", "TORQUES", "BLOCK", "FACTOR", "FACTORS", "START", "ROWS", "STATE_ROWS")


def vec3(x: list[Any]) -> Any:
    """A vector from three numbers."""
    return rebuild(lanes.empty_vec3, x)


def _formulas(graph: Graph) -> SimpleNamespace:
    polynomials = interpret(kernels_leg.cos_sin, graph)

    def cos_sin(angle: Any) -> tuple[Any, Any]:
        """Their derivatives are each other, not those of the polynomials."""
        c, s = polynomials(angle)
        return graph.operate("cosine", c, s, angle), graph.operate("sine", s, c, angle)

    graph.replaced[kernels_leg.cos_sin] = cos_sin
    functions = (
        *(kernels_leg.add_leg, kernels_leg.leg_wrench, kernels_mass.rotation, kernels_mass.torso_block),
        *(kernels_mass.complete, kernels_mass.sym_times, kernels_mass.times, kernels_mass.transposed_times),
        *(kernels_ant.torso_motion, kernels_ant.torso_wrench, kernels_ant.anchor_wrench, kernels_ant.eliminate),
        *(kernels_ant.move_leg, kernels_ant.move_torso, kernels_ant.to_world),
    )
    return SimpleNamespace(**{function.key: interpret(function, graph) for function in functions})


def _turned(f: SimpleNamespace, torso: Any) -> Any:
    return f.rotation(torso.qx, torso.qy, torso.qz, torso.qw)


def _legs(x: list[Any]) -> list[list[Any]]:
    width = len(x) // ant.NUM_LEGS
    return [x[leg * width : (leg + 1) * width] for leg in range(ant.NUM_LEGS)]


def _begin(graph: Graph, rows: list[Any]) -> Any:
    """ROWS -> START."""
    f = _formulas(graph)
    axes = f.rotation(*rows[QUATERNION : QUATERNION + 4])
    v, w = (f.transposed_times(axes, vec3(rows[row : row + 3])) for row in (VELOCITY, OMEGA))
    legs, motors = [], []
    for leg, sign in enumerate(ant.ANKLE_SIGN):
        hip, ankle = 2 * leg, 2 * leg + 1
        legs += [rows[ANGLES + hip], sign * rows[ANGLES + ankle], rows[RATES + hip], sign * rows[RATES + ankle]]
        motors += [ant.ACTION_STRENGTH * rows[STATE_ROWS + hip], sign * ant.ACTION_STRENGTH * rows[STATE_ROWS + ankle]]
    return *(0.0,) * 6, 1.0, v, w, *legs, *motors, axes.y, rows[HEIGHT]


def _inertia(graph: Graph, angles: list[Any], mount: list[Any]) -> Any:
    """What a leg adds to the root block, and its factor in torso axes."""
    leg = rebuild(kernels_leg.empty_leg, [*angles, 0.0, 0.0, 0.0, 0.0])
    return _formulas(graph).add_leg(rebuild(kernels_leg.empty_root_block, [0.0] * BLOCK), leg, mount)


def _complete(graph: Graph, block: list[Any], factors: list[Any], torso: list[Any]) -> Any:
    """Sum of the legs' blocks, the legs' factors in torso axes -> FACTORS in anchor axes."""
    f = _formulas(graph)
    legs = [rebuild(kernels_leg.empty_leg_factor, part) for part in _legs(factors)]
    whole = rebuild(kernels_leg.empty_root_block, block) + f.torso_block(0.0, kernels_mass.M0)
    return f.complete(whole, *legs, rebuild(kernels_ant.empty_torso, torso))


def _motion(graph: Graph, torso: list[Any], anchor: list[Any]) -> Any:
    """Torso, world up and height of the anchor -> MOTION, the WRENCH that the torso alone must be given, its depth."""
    f = _formulas(graph)
    body = rebuild(kernels_ant.empty_torso, torso)
    motion = f.torso_motion(body, _turned(f, body), vec3(anchor[:3]), anchor[3])
    return motion, f.torso_wrench(kernels_mass.M0, *motion), graph.operate("fixed", graph.depths[0])


def _leg(graph: Graph, hinges: list[Any], motors: list[Any], motion: list[Any], mount: list[Any]) -> Any:
    """-> WRENCH, the torques on hip and ankle, and the depth of the deeper of knee and hip."""
    leg = rebuild(kernels_leg.empty_leg, [*hinges, *motors])
    torso = (vec3(motion[i : i + 3]) for i in range(0, 12, 3))
    forces = _formulas(graph).leg_wrench(leg, mount, *torso, motion[12])
    _tip, knee, hip = graph.depths
    return forces, graph.operate("fixed", graph.maximum(knee, hip))


def _move(graph: Graph, body: list[Any], forces: list[Any], factors: list[Any]) -> Any:
    """BODY, WRENCH and TORQUES, FACTORS -> BODY one substep later."""
    f = _formulas(graph)
    torso = rebuild(kernels_ant.empty_torso, body)
    torques = _legs(forces[WRENCH:])
    inverse = rebuild(kernels_mass.empty_root_inverse, factors)
    legs = [rebuild(kernels_leg.empty_leg_factor, part) for part in _legs(factors[INVERSE:])]
    moment, force = f.anchor_wrench(torso, _turned(f, torso), vec3(forces[:3]), vec3(forces[3:6]))
    for leg, torque in zip(legs, torques, strict=True):
        moment, force = f.eliminate(leg, *torque, moment, force)
    w_dot = f.sym_times(inverse.angular, moment - f.times(inverse.x, force))
    v_dot = f.sym_times(inverse.linear, force) - f.transposed_times(inverse.x, w_dot)
    hinges: list[Any] = []
    for held, leg, torque in zip(_legs(body[TORSO:]), legs, torques, strict=True):
        moved = f.move_leg(rebuild(kernels_leg.empty_leg, [*held, 0.0, 0.0]), leg, *torque, w_dot, v_dot)
        hinges += [moved.hip, moved.ankle, moved.hip_rate, moved.ankle_rate]
    return f.move_torso(torso, w_dot, v_dot), *hinges


def _finish(graph: Graph, rows: list[Any], body: list[Any]) -> Any:
    """Position and quaternion of the anchor, BODY -> STATE_ROWS."""
    f = _formulas(graph)
    quaternion = rows[QUATERNION : QUATERNION + 4]
    anchor = vec3([rows[PX], rows[HEIGHT], rows[PZ]])
    p, *turned, velocity, omega = f.to_world(
        f.rotation(*quaternion), anchor, *quaternion, rebuild(kernels_ant.empty_torso, body)
    )
    legs = list(zip(_legs(body[TORSO:]), ant.ANKLE_SIGN, strict=True))
    angles = [angle for (hip, ankle, _, _), sign in legs for angle in (hip, sign * ankle)]
    rates = [rate for (_, _, hip, ankle), sign in legs for rate in (hip, sign * ankle)]
    return p.x, p.z, p.y, *turned, velocity, omega, *angles, *rates


_CPU = f"""
typedef float V __attribute__((ext_vector_type({lanes.WIDTH})));
#INLINE V MAX(V a, V b) {{ return __builtin_elementwise_max(a, b); }}
#INLINE V MIN(V a, V b) {{ return __builtin_elementwise_min(a, b); }}
#INLINE V SQRT(V a) {{ return __builtin_elementwise_sqrt(a); }}
#INLINE V RINT(V a) {{ return __builtin_elementwise_roundeven(a); }}
#INLINE bool ANY_POSITIVE(V a) {{ return __builtin_reduce_max(a) > 0.0f; }}
""".replace("#INLINE", "static inline __attribute__((always_inline))")
_CUDA = """
typedef float V;
static __device__ V MAX(V a, V b) { return fmaxf(a, b); }
static __device__ V MIN(V a, V b) { return fminf(a, b); }
static __device__ V SQRT(V a) { return sqrtf(a); }
static __device__ V RINT(V a) { return rintf(a); }
static __device__ bool ANY_POSITIVE(V a) { return a > 0.0f; }
"""

# Straight-line functions called in the order of `kernels_ant.advance`, and back. x, y, c*: numbers, results, cotangents.
_DRIVER = """
FUNCTION void add(const V* x, V* y, int n) { for (int i = 0; i < n; ++i) y[i] += x[i]; }
FUNCTION void copy(const V* x, V* y, int n) { for (int i = 0; i < n; ++i) y[i] = x[i]; }
FUNCTION void zero(V* y, int n) { for (int i = 0; i < n; ++i) y[i] = V(0.0f); }

FUNCTION void gather(const V* body, V* block, V* legs) {  // the inputs of `complete`
  const float mounts[] = {MOUNTS};
  zero(block, BLOCK);
  for (int leg = 0; leg < LEGS; ++leg) {
    V out[BLOCK + FACTOR];
    inertia(body + TORSO + HINGES * leg, mounts + 3 * leg, out);
    add(out, block, BLOCK);
    copy(out + BLOCK, legs + FACTOR * leg, FACTOR);
  }
}
FUNCTION void factorise(const V* body, V* factors) {
  V block[BLOCK], legs[LEGS * FACTOR];
  gather(body, block, legs);
  complete(block, legs, body, factors);
}
FUNCTION void factorise_vjp(const V* body, const V* cfactors, V* cbody) {
  const float mounts[] = {MOUNTS};
  V block[BLOCK], legs[LEGS * FACTOR], clegs[LEGS * FACTOR], cout[BLOCK + FACTOR];
  gather(body, block, legs);
  zero(cout, BLOCK);
  zero(clegs, LEGS * FACTOR);
  complete_vjp(block, legs, body, cfactors, cout, clegs, cbody);
  for (int leg = 0; leg < LEGS; ++leg) {
    copy(clegs + FACTOR * leg, cout + BLOCK, FACTOR);
    inertia_vjp(body + TORSO + HINGES * leg, mounts + 3 * leg, cout, cbody + TORSO + HINGES * leg);
  }
}

// start: body, motors, anchor; forces: MOTION, WRENCH, TORQUES, depths of the torso and of each leg (without its tip)
FUNCTION void substep(const V* body, const V* start, const V* factors, V* forces, V* next) {
  const float mounts[] = {MOUNTS};
  motion(body, start + BODY + TORQUES, forces);
  forces[FORCES - LEGS - 1] = forces[MOTION + WRENCH];
  for (int leg = 0; leg < LEGS; ++leg) {
    V out[WRENCH + 3];
    leg_wrench(body + TORSO + HINGES * leg, start + BODY + 2 * leg, forces, mounts + 3 * leg, out);
    add(out, forces + MOTION, WRENCH);
    copy(out + WRENCH, forces + MOTION + WRENCH + 2 * leg, 2);
    forces[FORCES - LEGS + leg] = out[WRENCH + 2];
  }
  move(body, forces + MOTION, factors, next);
}
FUNCTION void substep_vjp(const V* body, const V* start, const V* factors, const V* forces, const V* cnext, V* cbody,
                          V* cstart, V* cfactors) {
  const float mounts[] = {MOUNTS};
  V cforces[FORCES], cout[WRENCH + 2];
  zero(cforces, FORCES);
  move_vjp(body, forces + MOTION, factors, cnext, cbody, cforces + MOTION, cfactors);
  copy(cforces + MOTION, cout, WRENCH);
  for (int leg = 0; leg < LEGS; ++leg) {
    copy(cforces + MOTION + WRENCH + 2 * leg, cout + WRENCH, 2);
    // contacts other than those of the tips are rare
    (ANY_POSITIVE(forces[FORCES - LEGS + leg]) ? leg_wrench_vjp : leg_wrench_clear_vjp)(
        body + TORSO + HINGES * leg, start + BODY + 2 * leg, forces, mounts + 3 * leg, cout,
        cbody + TORSO + HINGES * leg, cstart + BODY + 2 * leg, cforces);
  }
  (ANY_POSITIVE(forces[FORCES - LEGS - 1]) ? motion_vjp : motion_clear_vjp)(
      body, start + BODY + TORQUES, cforces, cbody, cstart + BODY + TORQUES);
}

FUNCTION void advance(const V* rows, int interval, V* next) {
  V start[START], bodies[2 * BODY], factors[FACTORS], forces[FORCES];
  begin(rows, start);
  copy(start, bodies, BODY);
  for (int k = 0; k < SUBSTEPS; ++k) {
    V* body = bodies + BODY * (k % 2);
    if (k % interval == 0) factorise(body, factors);
    substep(body, start, factors, forces, bodies + BODY * ((k + 1) % 2));
  }
  finish(rows, bodies + BODY * (SUBSTEPS % 2), next);
}
FUNCTION void advance_vjp(const V* rows, int interval, const V* start, const V* bodies, const V* forces, V* factors,
                          const V* cnext, V* crows) {
  V cstart[START], cbodies[2 * BODY], cfactors[FACTORS];
  zero(cbodies + BODY * (SUBSTEPS % 2), BODY);
  finish_vjp(rows, bodies + BODY * SUBSTEPS, cnext, crows, cbodies + BODY * (SUBSTEPS % 2));
  zero(cstart, START);
  zero(cfactors, FACTORS);
  int held = (SUBSTEPS - 1) / interval * interval;  // the substep whose mass matrix is in `factors`
  for (int k = SUBSTEPS - 1; k >= 0; --k) {
    const int since = k / interval * interval;
    if (since != held) factorise(bodies + BODY * since, factors);
    held = since;
    V* cbody = cbodies + BODY * (k % 2);
    zero(cbody, BODY);
    substep_vjp(bodies + BODY * k, start, factors, forces + FORCES * k, cbodies + BODY * ((k + 1) % 2), cbody, cstart,
                cfactors);
    if (k == since) {
      factorise_vjp(bodies + BODY * k, cfactors, cbody);
      zero(cfactors, FACTORS);
    }
  }
  add(cbodies, cstart, BODY);
  begin_vjp(rows, cstart, crows);
}

FUNCTION void read(const float* from, int columns, int first, int count, V* x) {
  for (int i = 0; i < WIDTH; ++i) {
    const float* row = from + long(columns) * (first + i < count ? first + i : count - 1);
    for (int k = 0; k < columns; ++k) ((float*)(x + k))[i] = row[k];
  }
}
FUNCTION void write(const V* x, int columns, int first, int count, float* to) {
  for (int i = 0; i < WIDTH && first + i < count; ++i)
    for (int k = 0; k < columns; ++k) to[long(columns) * (first + i) + k] = ((const float*)(x + k))[i];
}

FUNCTION void step(int group, int count, int interval, const float* given, float* result) {
  V x[IN], rows[ROWS], next[ROWS], y[OUT];
  read(given, IN, WIDTH * group, count, x);
  load(x, rows);
  advance(rows, interval, next);
  copy(rows + STATE_ROWS, next + STATE_ROWS, ACTIONS);
  store(next, y);
  write(y, OUT, WIDTH * group, count, result);
}
FUNCTION void step_vjp(int group, int count, int interval, const float* given, const float* cotangent, float* result) {
  V x[IN], cx[IN], cy[OUT], rows[ROWS], next[ROWS], cnext[ROWS], crows[ROWS];
  V start[START], bodies[BODY * (SUBSTEPS + 1)], forces[FORCES * SUBSTEPS], factors[FACTORS];
  read(given, IN, WIDTH * group, count, x);
  read(cotangent, OUT, WIDTH * group, count, cy);
  load(x, rows);
  begin(rows, start);
  copy(start, bodies, BODY);
  for (int k = 0; k < SUBSTEPS; ++k) {
    if (k % interval == 0) factorise(bodies + BODY * k, factors);
    substep(bodies + BODY * k, start, factors, forces + FORCES * k, bodies + BODY * (k + 1));
  }
  finish(rows, bodies + BODY * SUBSTEPS, next);
  copy(rows + STATE_ROWS, next + STATE_ROWS, ACTIONS);
  zero(cnext, ROWS);
  store_vjp(next, cy, cnext);
  zero(crows, STATE_ROWS);
  copy(cnext + STATE_ROWS, crows + STATE_ROWS, ACTIONS);
  advance_vjp(rows, interval, start, bodies, forces, factors, cnext, crows);
  zero(cx, IN);
  load_vjp(x, crows, cx);
  write(cx, IN, WIDTH * group, count, result);
}
"""


@functools.cache
def _segments() -> tuple[Segment, ...]:
    legs, torso = {"factors": ant.NUM_LEGS * FACTOR}, {"torso": TORSO}
    leg = {"hinges": HINGES, "motors": 2, "motion": MOTION, "mount": 3}
    return (
        Segment("begin", _begin, {"rows": ROWS}),
        Segment("inertia", _inertia, {"angles": 2, "mount": 3}, uniform=["mount"]),
        Segment("complete", _complete, {"block": BLOCK} | legs | torso),
        Segment("motion", _motion, torso | {"anchor": 4}),
        Segment("motion_clear", _motion, torso | {"anchor": 4}, contacts=0),
        Segment("leg_wrench", _leg, leg, uniform=["mount"]),
        Segment("leg_wrench_clear", _leg, leg, uniform=["mount"], contacts=1),
        Segment("move", _move, {"body": BODY, "forces": WRENCH + TORQUES, "factors": FACTORS}),
        Segment("finish", _finish, {"rows": VELOCITY, "body": BODY}),
    )


def step_source(load: Segment, store: Segment, width: int) -> str:
    """A C++ struct `Ant` with `step` and `step_vjp` of one group of `width` environments: 16 on a CPU, 1 on CUDA.

    `load` turns what an environment is given into ROWS, `store` what it has after the step (ROWS, with the action
    unchanged) into the result. Both are named so.
    """
    mounts = [float(number) for leg in range(ant.NUM_LEGS) for number in kernels_leg.mount_of(leg)]
    sizes = {
        "IN": sum(load.groups.values()),
        "FORCES": MOTION + WRENCH + TORQUES + 1 + ant.NUM_LEGS,
        "OUT": store.outputs,
        "WIDTH": width,
        "SUBSTEPS": ant.SUBSTEPS,
        "LEGS": ant.NUM_LEGS,
        "ACTIONS": ant.NUM_ACTIONS,
        **{name: globals()[name] for name in _SIZES},
    }
    constants = "enum { " + ", ".join(f"{name} = {value}" for name, value in sizes.items()) + " };"
    driver = _DRIVER.replace("MOUNTS", ", ".join(f"{number!r}f" for number in mounts))
    functions = "".join(segment.source() for segment in (*_segments(), load, store)) + driver
    qualifier = "static __attribute__((noinline))" if width > 1 else "static __device__ __noinline__"
    return (
        f"struct Ant {{ {constants}{_CPU if width > 1 else _CUDA}{functions.replace('FUNCTION', qualifier)} }};\n"
    )
