"""One leg of the Ant: its frames, forces and ground contact, as Warp functions of either lane type.

Not a general articulated body: a leg is a hip (about the torso's z) and an ankle (about the leg's y), and only what
is not zero for that chain is computed. All four legs are the same here. They differ in the yaw at which they are
mounted and in the sign of one product of inertia, passed in as `mount`; ankle angles come multiplied by
`ant.ANKLE_SIGN`.

Axes. *Torso axes*: origin at the torso's centre. *Leg axes*: origin at the hip, x along the upper link, y the ankle
axis, z the torso's. *Foot axes*: leg axes turned about y by the ankle angle, x along the foot.
Symbols: w angular velocity, v velocity, a acceleration *minus gravity* with all joint accelerations zero (so weight
needs no term of its own), e the unit vector that points up in the world.
"""

# Function bodies are Warp's language, which has its own types.
# mypy: ignore-errors
import math
from typing import TypeAlias

import warp as wp

from flowmbpo.physics import ant
from flowmbpo.physics.lanes import (  # noqa: F401 (Warp finds operators by name)
    Scalar,
    Struct,
    Vec3,
    add,
    any_positive,
    axpy,
    cross,
    div,
    dot,
    lane_struct,
    maximum,
    minimum,
    mul,
    nearest,
    neg,
    root,
    scalar,
    scale,
    sub,
    vec3,
)

_, _UPPER, _FOOT, *_ = ant.links()
_UPPER_I, _FOOT_I = (ant.leg_axes_inertia(body, ant.LEG_YAW[0]) for body in (_UPPER, _FOOT))

M1, M2 = wp.constant(_UPPER.mass), wp.constant(_FOOT.mass)
J1, K1, T1 = (wp.constant(float(_UPPER_I[i, j])) for i, j in ((0, 0), (0, 1), (2, 2)))
J2, K2, T2 = (wp.constant(float(_FOOT_I[i, j])) for i, j in ((0, 0), (0, 1), (2, 2)))
L1, L2 = wp.constant(ant.UPPER_LENGTH), wp.constant(ant.FOOT_LENGTH)
C1, C2 = wp.constant(ant.UPPER_LENGTH / 2), wp.constant(ant.FOOT_LENGTH / 2)  # hip and ankle to centres of mass
HIP = wp.constant(ant.STUB_LENGTH)  # torso centre to hip
RADIUS = wp.constant(ant.LIMB_RADIUS)
DAMPING = wp.constant(ant.JOINT_DAMPING)
LIMIT_KE = wp.constant(ant.LIMIT_STIFFNESS)
HIP_LIMIT, ANKLE_LOWER, ANKLE_UPPER = (wp.constant(x) for x in (ant.HIP_LIMIT, ant.ANKLE_LOWER, ant.ANKLE_UPPER))
KE, KD, KF = wp.constant(ant.CONTACT_KE), wp.constant(ant.CONTACT_KD), wp.constant(ant.CONTACT_KF)
MU_KE = wp.constant(ant.CONTACT_MU * ant.CONTACT_KE)
SLOWEST = wp.constant(1.0e-12)  # m/s: keeps 0/0 out of the friction of a point at rest

TURN = wp.constant(2.0 * 3.141592653589793)
TURN_HIGH = wp.constant(6.28125)  # exact in few bits, so that n * TURN_HIGH is exact
TURN_LOW = wp.constant(2.0 * 3.141592653589793 - 6.28125)


def mount_of(leg: int) -> wp.vec3:
    """What tells leg `leg` (0 to 3) from the others: cosine and sine of its yaw, sign of its products of inertia."""
    yaw = ant.LEG_YAW[leg]
    return wp.vec3(math.cos(yaw), math.sin(yaw), 1.0 if leg % 2 == 0 else -1.0)


# Angles (rad), rates (rad/s) and motor torques (N m) of the two hinges.
empty_leg = lane_struct(
    "Leg", hip=scalar, ankle=scalar, hip_rate=scalar, ankle_rate=scalar, hip_motor=scalar, ankle_motor=scalar
)
Leg: TypeAlias = Struct


@wp.func
def cos_sin(x: Scalar):
    """Cosine and sine within 3e-7 for any angle whose turns fit a float; the same instructions on every device."""
    turns = nearest((1.0 / TURN) * x)
    half = 0.5 * ((x - TURN_HIGH * turns) - TURN_LOW * turns)  # within a quarter turn
    h2 = half * half
    # Taylor series; at a quarter turn the first neglected terms are 7e-10 and 6e-9
    s = 1.0 / 6227020800.0 * h2 - 1.0 / 39916800.0
    s = s * h2 + 1.0 / 362880.0
    s = s * h2 - 1.0 / 5040.0
    s = s * h2 + 1.0 / 120.0
    s = s * h2 - 1.0 / 6.0
    s = half * h2 * s + half
    c = 1.0 / 479001600.0 * h2 - 1.0 / 3628800.0
    c = c * h2 + 1.0 / 40320.0
    c = c * h2 - 1.0 / 720.0
    c = c * h2 + 1.0 / 24.0
    c = c * h2 - 0.5
    c = c * h2 + 1.0
    return 1.0 - 2.0 * (s * s), 2.0 * (s * c)


@wp.func
def leg_yaw(leg: Leg, mount: wp.vec3):
    """Cosine and sine of the turn from torso axes to leg axes."""
    c, s = cos_sin(leg.hip)
    return mount[0] * c - mount[1] * s, mount[1] * c + mount[0] * s


@wp.func
def turn(c: Scalar, s: Scalar, a: Vec3):
    """Leg axes to torso axes."""
    return vec3(c * a.x - s * a.y, s * a.x + c * a.y, a.z)


@wp.func
def turn_back(c: Scalar, s: Scalar, a: Vec3):
    """Torso axes to leg axes."""
    return vec3(c * a.x + s * a.y, c * a.y - s * a.x, a.z)


@wp.func
def tilt(c: Scalar, s: Scalar, a: Vec3):
    """Foot axes to leg axes."""
    return vec3(c * a.x + s * a.z, a.y, c * a.z - s * a.x)


@wp.func
def tilt_back(c: Scalar, s: Scalar, a: Vec3):
    """Leg axes to foot axes."""
    return vec3(c * a.x - s * a.z, a.y, s * a.x + c * a.z)


@wp.func
def about_torso(c: Scalar, s: Scalar, mount: wp.vec3, moment: Vec3, force: Vec3):
    """A wrench in leg axes about the hip, as moment about the torso's centre and force in torso axes."""
    f = turn(c, s, force)
    n = turn(c, s, moment)
    dx = HIP * mount[0]
    dy = HIP * mount[1]
    return vec3(n.x + dy * f.z, n.y - dx * f.z, n.z + dx * f.y - dy * f.x), f


@wp.func
def contact_force(depth: Scalar, closing: Scalar, v: Vec3, e: Vec3):
    """Force of the ground on a point at `depth` (>= 0) below it that moves with v; `closing` is v . e.

    The damping is multiplied by depth and acts only while approaching; friction is viscous up to a Coulomb cap that
    counts the elastic part alone. Zero at zero depth.
    """
    sliding = axpy(v, -closing, e)
    speed = root(dot(sliding, sliding))
    normal = depth * (KE + KD * maximum(-closing, 0.0))
    friction = minimum(KF, (MU_KE * depth) / maximum(speed, SLOWEST))
    return axpy(scale(normal, e), -friction, sliding)


@wp.func
def limit_torque(angle: Scalar, lower: float, upper: float):
    """One-sided springs at the ends of a hinge's range."""
    return LIMIT_KE * (maximum(lower - angle, 0.0) - maximum(angle - upper, 0.0))


@wp.func
def leg_wrench(leg: Leg, mount: wp.vec3, w_torso: Vec3, v_torso: Vec3, a_torso: Vec3, e_torso: Vec3, height: Scalar):
    """What the torso must supply to a leg whose joints do not accelerate, and what is left to turn the hinges.

    Arguments are those of the torso's centre in torso axes, `height` its height over the ground (m). Returns moment
    about the torso's centre (N m), force (N), torque on the hip and on the ankle (N m).
    """
    c, s = leg_yaw(leg, mount)
    ca, sa = cos_sin(leg.ankle)
    k1 = mount[2] * K1
    k2 = mount[2] * K2
    dx = HIP * mount[0]
    dy = HIP * mount[1]

    # motion of the hip point
    spin = dx * w_torso.x + dy * w_torso.y
    w2 = dot(w_torso, w_torso)
    a_hip = vec3(
        a_torso.x + (spin * w_torso.x - dx * w2), a_torso.y + (spin * w_torso.y - dy * w2), a_torso.z + spin * w_torso.z
    )
    v_hip = vec3(v_torso.x - dy * w_torso.z, v_torso.y + dx * w_torso.z, v_torso.z + (dy * w_torso.x - dx * w_torso.y))
    hip_height = height + (dx * e_torso.x + dy * e_torso.y)
    a_hip = turn_back(c, s, a_hip)
    v_hip = turn_back(c, s, v_hip)
    e = turn_back(c, s, e_torso)
    w0 = turn_back(c, s, w_torso)

    # upper link, leg axes
    w1 = vec3(w0.x, w0.y, w0.z + leg.hip_rate)
    alpha1 = vec3(leg.hip_rate * w0.y, -leg.hip_rate * w0.x, w0.x - w0.x)
    along1 = vec3(-(w1.y * w1.y + w1.z * w1.z), w1.x * w1.y, w1.x * w1.z - alpha1.y)  # acceleration per metre of x
    force1 = scale(M1, axpy(a_hip, C1, along1))
    spin1 = vec3(J1 * w1.x + k1 * w1.y, k1 * w1.x + J1 * w1.y, T1 * w1.z)
    moment1 = vec3(J1 * alpha1.x + k1 * alpha1.y, k1 * alpha1.x + J1 * alpha1.y, alpha1.z) + cross(w1, spin1)
    moment1 = vec3(moment1.x, moment1.y - C1 * force1.z, moment1.z + C1 * force1.y)  # now about the hip
    a_ankle = axpy(a_hip, L1, along1)
    v_ankle = vec3(v_hip.x, v_hip.y + L1 * w1.z, v_hip.z - L1 * w1.y)

    # foot, foot axes
    alpha2 = tilt_back(
        ca,
        sa,
        vec3(alpha1.x - leg.ankle_rate * w1.z, alpha1.y, leg.ankle_rate * w1.x),
    )
    w2_leg = vec3(w1.x, w1.y + leg.ankle_rate, w1.z)
    w_foot = tilt_back(ca, sa, w2_leg)
    along2 = vec3(
        -(w_foot.y * w_foot.y + w_foot.z * w_foot.z),
        w_foot.x * w_foot.y + alpha2.z,
        w_foot.x * w_foot.z - alpha2.y,
    )
    spin2 = vec3(J2 * w_foot.x + k2 * w_foot.y, k2 * w_foot.x + J2 * w_foot.y, T2 * w_foot.z)
    moment2 = vec3(J2 * alpha2.x + k2 * alpha2.y, k2 * alpha2.x + J2 * alpha2.y, T2 * alpha2.z) + cross(w_foot, spin2)

    # foot, leg axes, about the ankle
    force2 = scale(M2, axpy(a_ankle, C2, tilt(ca, sa, along2)))
    moment2 = tilt(ca, sa, moment2)
    moment2 = moment2 + vec3((C2 * sa) * force2.y, -C2 * (sa * force2.x + ca * force2.z), (C2 * ca) * force2.y)

    # ground contact of the tip (once) and of the knee (end of the upper link and start of the foot)
    down_w0 = cross(e, w0)  # the contact point is RADIUS below the centre: its velocity is v + RADIUS (e x w)
    down_w1 = vec3(down_w0.x + e.y * leg.hip_rate, down_w0.y - e.x * leg.hip_rate, down_w0.z)
    down_w2 = vec3(down_w1.x - e.z * leg.ankle_rate, down_w1.y, down_w1.z + e.x * leg.ankle_rate)
    ankle_depth = RADIUS - (hip_height + L1 * e.x)
    tip_x = L2 * ca
    tip_z = -L2 * sa
    tip_depth = ankle_depth - (tip_x * e.x + tip_z * e.z)
    if any_positive(tip_depth):
        v_tip = vec3(
            v_ankle.x + tip_z * w2_leg.y,
            v_ankle.y + (tip_x * w2_leg.z - tip_z * w2_leg.x),
            v_ankle.z - tip_x * w2_leg.y,
        )
        ground = contact_force(maximum(tip_depth, 0.0), dot(v_tip, e), axpy(v_tip, RADIUS, down_w2), e)
        arm = axpy(vec3(tip_x, tip_x - tip_x, tip_z), -RADIUS, e)
        force2 = force2 - ground
        moment2 = moment2 - cross(arm, ground)
    if any_positive(ankle_depth):
        depth = maximum(ankle_depth, 0.0)
        closing = dot(v_ankle, e)
        ground1 = contact_force(depth, closing, axpy(v_ankle, RADIUS, down_w1), e)
        ground2 = contact_force(depth, closing, axpy(v_ankle, RADIUS, down_w2), e)
        force2 = force2 - ground2
        moment2 = axpy(moment2, RADIUS, cross(e, ground2))
        moment1 = axpy(moment1, RADIUS, cross(e, ground1))
        moment1 = vec3(moment1.x, moment1.y + L1 * ground1.z, moment1.z - L1 * ground1.y)
        force1 = force1 - ground1

    ankle_torque = (
        leg.ankle_motor - moment2.y - DAMPING * leg.ankle_rate + limit_torque(leg.ankle, ANKLE_LOWER, ANKLE_UPPER)
    )

    # whole leg, leg axes, about the hip
    moment = moment1 + moment2
    moment = vec3(moment.x, moment.y - L1 * force2.z, moment.z + L1 * force2.y)
    force = force1 + force2
    hip_depth = RADIUS - hip_height
    hip_torque = leg.hip_motor - moment.z - DAMPING * leg.hip_rate + limit_torque(leg.hip, -HIP_LIMIT, HIP_LIMIT)
    if any_positive(hip_depth):  # start of the upper link, end of the stub on the torso
        depth = maximum(hip_depth, 0.0)
        closing = dot(v_hip, e)
        ground0 = contact_force(depth, closing, axpy(v_hip, RADIUS, down_w0), e)
        ground1 = contact_force(depth, closing, axpy(v_hip, RADIUS, down_w1), e)
        force = force - (ground0 + ground1)
        moment = axpy(moment, RADIUS, cross(e, ground0 + ground1))
        hip_torque = hip_torque - RADIUS * (e.x * ground1.y - e.y * ground1.x)
    moment, force = about_torso(c, s, mount, moment, force)
    return moment, force, hip_torque, ankle_torque
