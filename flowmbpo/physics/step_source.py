"""C source of one control step and of its vector-Jacobian product, around the functions that are generated.

Nothing is stored between forward and backward pass: the product recomputes the substeps, keeps their states, and
sweeps back. The derivative of the mass matrix is part of it, also while the matrix is cached.
"""

from __future__ import annotations

from flowmbpo.physics import ant, differentiable, kernels_leg, lanes
from flowmbpo.physics.differentiable import MOTION, STATE_ROWS, TORQUES, WRENCH, segments
from flowmbpo.physics.tracing import Segment

# what the C source is told of `differentiable`
_SIZES = ("TORSO", "HINGES", "BODY", "MOTION", "WRENCH", "TORQUES", "BLOCK", "FACTOR", "FACTORS", "START", "ROWS")

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

# The generated functions in the order of `kernels_ant.advance`, and back. x, y, c...: inputs, results, cotangents.
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
        "STATE_ROWS": STATE_ROWS,
        **{name: getattr(differentiable, name) for name in _SIZES},
    }
    constants = "enum { " + ", ".join(f"{name} = {value}" for name, value in sizes.items()) + " };"
    driver = _DRIVER.replace("MOUNTS", ", ".join(f"{number!r}f" for number in mounts))
    functions = "".join(segment.source() for segment in (*segments(), load, store)) + driver
    qualifier = "static __attribute__((noinline))" if width > 1 else "static __device__ __noinline__"
    return f"struct Ant {{ {constants}{_CPU if width > 1 else _CUDA}{functions.replace('FUNCTION', qualifier)} }};\n"
