"""The parts of a control step that are differentiated, composed from the formulas of `kernels_*`.

Each is a straight-line formula from groups of numbers to numbers. Their order, and the loop over the substeps, are in
`step_source`, which does what `kernels_ant.advance` does. Observation and reward are not known here.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from types import SimpleNamespace

from flowmbpo.physics import ant, kernels_ant, kernels_leg, kernels_leg_mass, kernels_mass, lanes
from flowmbpo.physics.formulas import Formula, Struct, interpret, rebuild, size
from flowmbpo.physics.kernels_ant import ANGLES, HEIGHT, OMEGA, PX, PZ, QUATERNION, RATES, STATE_ROWS, VELOCITY
from flowmbpo.physics.tracing import Graph, Number, Result, Segment

TORSO = size(kernels_ant.empty_torso)
HINGES = 4  # of a leg: hip, ankle and their rates
BODY = TORSO + ant.NUM_LEGS * HINGES
MOTION = 13  # w, v, a, e and height of the torso, as `leg_wrench` takes them
WRENCH = 6
TORQUES = 2 * ant.NUM_LEGS
BLOCK = size(kernels_leg_mass.empty_root_block)
FACTOR = size(kernels_leg_mass.empty_leg_factor)
INVERSE = size(kernels_mass.empty_root_inverse)
FACTORS = INVERSE + ant.NUM_LEGS * FACTOR
START = BODY + TORQUES + 4  # body, motor torques, world up in anchor axes, height
ROWS = STATE_ROWS + ant.NUM_ACTIONS  # state and action


def vec3(x: Sequence[object]) -> Struct:
    """A vector from three numbers."""
    return rebuild(lanes.empty_vec3, x)


def _formulas(graph: Graph) -> SimpleNamespace:
    polynomials = interpret(kernels_leg.cos_sin, graph)

    def cos_sin(angle: Number) -> tuple[Number, Number]:
        """Their derivatives are each other, not those of the polynomials."""
        c, s = polynomials(angle)
        return graph.operate("cosine", c, s, angle), graph.operate("sine", s, c, angle)

    graph.replaced[kernels_leg.cos_sin] = cos_sin
    functions: tuple[Formula, ...] = (
        *(kernels_leg_mass.add_leg, kernels_leg.leg_wrench, kernels_mass.rotation, kernels_mass.torso_block),
        *(kernels_mass.complete, kernels_mass.sym_times, kernels_mass.times, kernels_mass.transposed_times),
        *(kernels_ant.torso_motion, kernels_ant.torso_wrench, kernels_ant.anchor_wrench, kernels_ant.eliminate),
        *(kernels_ant.move_leg, kernels_ant.move_torso, kernels_ant.to_world),
    )
    return SimpleNamespace(**{function.__name__: interpret(function, graph) for function in functions})


def _turned(f: SimpleNamespace, torso: Struct) -> Struct:
    return f.rotation(torso.qx, torso.qy, torso.qz, torso.qw)


def _legs(x: list[Number]) -> list[list[Number]]:
    width = len(x) // ant.NUM_LEGS
    return [x[leg * width : (leg + 1) * width] for leg in range(ant.NUM_LEGS)]


def _begin(graph: Graph, rows: list[Number]) -> Result:
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


def _inertia(graph: Graph, angles: list[Number], mount: list[Number]) -> Result:
    """What a leg adds to the root block, and its factor in torso axes."""
    leg = rebuild(kernels_leg.empty_leg, [*angles, 0.0, 0.0, 0.0, 0.0])
    return _formulas(graph).add_leg(rebuild(kernels_leg_mass.empty_root_block, [0.0] * BLOCK), leg, mount)


def _complete(graph: Graph, block: list[Number], factors: list[Number], torso: list[Number]) -> Result:
    """Sum of the legs' blocks, the legs' factors in torso axes -> FACTORS in anchor axes."""
    f = _formulas(graph)
    legs = [rebuild(kernels_leg_mass.empty_leg_factor, part) for part in _legs(factors)]
    whole = rebuild(kernels_leg_mass.empty_root_block, block) + f.torso_block(0.0, kernels_mass.M0)
    return f.complete(whole, *legs, rebuild(kernels_ant.empty_torso, torso))


def _motion(graph: Graph, torso: list[Number], anchor: list[Number]) -> Result:
    """Torso, world up and height of the anchor -> MOTION, the WRENCH that the torso alone must be given, its depth."""
    f = _formulas(graph)
    body = rebuild(kernels_ant.empty_torso, torso)
    motion = f.torso_motion(body, _turned(f, body), vec3(anchor[:3]), anchor[3])
    return motion, f.torso_wrench(kernels_mass.M0, *motion), graph.operate("fixed", graph.depths[0])


def _leg(graph: Graph, hinges: list[Number], motors: list[Number], motion: list[Number], mount: list[Number]) -> Result:
    """-> WRENCH, the torques on hip and ankle, and the depth of the deeper of knee and hip."""
    leg = rebuild(kernels_leg.empty_leg, [*hinges, *motors])
    torso = (vec3(motion[i : i + 3]) for i in range(0, 12, 3))
    forces = _formulas(graph).leg_wrench(leg, mount, *torso, motion[12])
    _tip, knee, hip = graph.depths
    return forces, graph.operate("fixed", graph.maximum(knee, hip))


def _move(graph: Graph, body: list[Number], forces: list[Number], factors: list[Number]) -> Result:
    """BODY, WRENCH and TORQUES, FACTORS -> BODY one substep later."""
    f = _formulas(graph)
    torso = rebuild(kernels_ant.empty_torso, body)
    torques = _legs(forces[WRENCH:])
    inverse = rebuild(kernels_mass.empty_root_inverse, factors)
    legs = [rebuild(kernels_leg_mass.empty_leg_factor, part) for part in _legs(factors[INVERSE:])]
    moment, force = f.anchor_wrench(torso, _turned(f, torso), vec3(forces[:3]), vec3(forces[3:6]))
    for leg, torque in zip(legs, torques, strict=True):
        moment, force = f.eliminate(leg, *torque, moment, force)
    w_dot = f.sym_times(inverse.angular, moment - f.times(inverse.x, force))
    v_dot = f.sym_times(inverse.linear, force) - f.transposed_times(inverse.x, w_dot)
    hinges: list[Number] = []
    for held, leg, torque in zip(_legs(body[TORSO:]), legs, torques, strict=True):
        moved = f.move_leg(rebuild(kernels_leg.empty_leg, [*held, 0.0, 0.0]), leg, *torque, w_dot, v_dot)
        hinges += [moved.hip, moved.ankle, moved.hip_rate, moved.ankle_rate]
    return f.move_torso(torso, w_dot, v_dot), *hinges


def _finish(graph: Graph, rows: list[Number], body: list[Number]) -> Result:
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


@functools.cache
def segments() -> tuple[Segment, ...]:
    """All parts, in the order of their use."""
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
