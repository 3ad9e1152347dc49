"""One control step of the DFlex Ant, as a Warp function of either lane type: sixteen semi-implicit Euler substeps.

Not a kernel and not an environment: `advance` moves the state of one lane group (one environment, or sixteen) and
knows neither reward nor reset. What is computed, and the sources, are in docs/physics.md.

Everything is expressed in the *anchor* axes: those of the torso frame at the start of the control step. The reference
works about the world origin and in world axes, but its result does not depend on that choice, and here nothing loses
precision with the distance that the Ant has walked.
"""

# Function bodies are Warp's language, which has its own types.
# mypy: ignore-errors

import warp as wp

from flowmbpo.physics import ant
from flowmbpo.physics.kernels_leg import RADIUS, Leg, contact_force, empty_leg, leg_wrench, mount_of
from flowmbpo.physics.kernels_leg_mass import LegFactor, Mat3, add_leg
from flowmbpo.physics.kernels_mass import (
    I0_XX,
    I0_XY,
    I0_YY,
    I0_ZZ,
    M0,
    Torso,
    complete,
    empty_torso,
    rotation,
    sym_times,
    times,
    torso_block,
    transposed_times,
)
from flowmbpo.physics.lanes import (  # noqa: F401 (Warp finds operators by name)
    Scalar,
    Vec3,
    add,
    any_positive,
    axpy,
    cross,
    div,
    dot,
    maximum,
    minimum,
    mul,
    neg,
    root,
    scale,
    sub,
    vec3,
)

# Rows of the state of a lane group. The rows from HEIGHT on are in the order of the observation.
PX, PZ, HEIGHT, QUATERNION, VELOCITY, OMEGA, ANGLES, RATES = (wp.constant(i) for i in (0, 1, 2, 3, 7, 10, 13, 21))
STATE_ROWS = 29

TORSO_RADIUS = wp.constant(ant.TORSO_RADIUS)
G = wp.constant(ant.GRAVITY)
H = wp.constant(ant.SUBSTEP)
SUBSTEPS = wp.constant(ant.SUBSTEPS)
STRENGTH = wp.constant(ant.ACTION_STRENGTH)
LEG_1, LEG_2, LEG_3, LEG_4 = (wp.constant(mount_of(leg)) for leg in range(ant.NUM_LEGS))
Rows = wp.array2d(dtype=Scalar)  # of a number of either lane type
SIGN_1, SIGN_2, SIGN_3, SIGN_4 = (wp.constant(sign) for sign in ant.ANKLE_SIGN)


@wp.func
def torso_wrench(mass: Scalar, w: Vec3, v: Vec3, a: Vec3, e: Vec3, height: Scalar):
    """What the torso alone must be given: moment about its centre (N m) and force (N), torso axes."""
    spin = vec3(I0_XX * w.x + I0_XY * w.y, I0_XY * w.x + I0_YY * w.y, I0_ZZ * w.z)
    moment = cross(w, spin)
    force = scale(mass, a)
    sphere_depth = TORSO_RADIUS - height
    if any_positive(sphere_depth):  # the sphere, and the start of each of the four stubs
        closing = dot(v, e)
        down_w = cross(e, w)
        sphere = contact_force(maximum(sphere_depth, 0.0), closing, axpy(v, TORSO_RADIUS, down_w), e)
        stub = contact_force(maximum(RADIUS - height, 0.0), closing, axpy(v, RADIUS, down_w), e)
        force = force - axpy(sphere, 4.0, stub)
        moment = moment + cross(e, axpy(scale(TORSO_RADIUS, sphere), 4.0 * RADIUS, stub))
    return moment, force


@wp.func
def eliminate(factor: LegFactor, hip: Scalar, ankle: Scalar, moment: Vec3, force: Vec3):
    """Take the reaction of a leg's hinge torques off the wrench on the root."""
    moment = axpy(axpy(moment, -hip, factor.hip_moment), -ankle, factor.ankle_moment)
    force = axpy(axpy(force, -hip, factor.hip_force), -ankle, factor.ankle_force)
    return moment, force


@wp.func
def torso_motion(torso: Torso, turned: Mat3, up: Vec3, start_height: Scalar):
    """w, v, a and e of the torso's centre in torso axes (see `kernels_leg`), and its height over the ground (m)."""
    w = transposed_times(turned, torso.w)
    v = transposed_times(turned, torso.v + cross(torso.w, torso.r))
    e = transposed_times(turned, up)
    return w, v, axpy(cross(w, v), G, e), e, start_height + dot(up, torso.r)


@wp.func
def anchor_wrench(torso: Torso, turned: Mat3, moment: Vec3, force: Vec3):
    """What acts on the root in anchor axes about the anchor's origin, from what the Ant must be given in torso axes."""
    force = scale(-1.0, times(turned, force))
    return cross(torso.r, force) - times(turned, moment), force


@wp.func
def move_leg(leg: Leg, factor: LegFactor, hip: Scalar, ankle: Scalar, w_dot: Vec3, v_dot: Vec3):
    """Integrate the hinges of a leg: accelerations (from torques and the root's), then rates, then angles."""
    hip_dot = (factor.inv_hh * hip + factor.inv_ha * ankle) - (
        dot(factor.hip_moment, w_dot) + dot(factor.hip_force, v_dot)
    )
    ankle_dot = (factor.inv_ha * hip + factor.inv_aa * ankle) - (
        dot(factor.ankle_moment, w_dot) + dot(factor.ankle_force, v_dot)
    )
    leg.hip_rate = leg.hip_rate + H * hip_dot
    leg.ankle_rate = leg.ankle_rate + H * ankle_dot
    leg.hip = leg.hip + H * leg.hip_rate
    leg.ankle = leg.ankle + H * leg.ankle_rate
    return leg


@wp.func
def move_torso(torso: Torso, w_dot: Vec3, v_dot: Vec3):
    """Integrate velocities, then position and orientation with the new velocities."""
    w = axpy(torso.w, H, w_dot)
    torso.w = w
    torso.v = axpy(torso.v, H, v_dot)
    torso.r = axpy(torso.r, H, torso.v + cross(w, torso.r))
    x = torso.qx
    y = torso.qy
    z = torso.qz
    s = torso.qw
    half = 0.5 * H
    qx = x + half * (s * w.x + (w.y * z - w.z * y))
    qy = y + half * (s * w.y + (w.z * x - w.x * z))
    qz = z + half * (s * w.z + (w.x * y - w.y * x))
    qw = s - half * (w.x * x + w.y * y + w.z * z)
    k = 1.0 / root(qx * qx + qy * qy + qz * qz + qw * qw)
    torso.qx = k * qx
    torso.qy = k * qy
    torso.qz = k * qz
    torso.qw = k * qw
    return torso


@wp.func
def to_world(axes: Mat3, p: Vec3, x: Scalar, y: Scalar, z: Scalar, w: Scalar, torso: Torso):
    """Position, quaternion, velocity of the centre and angular velocity in world axes; the anchor is at p, turned by
    the quaternion (x, y, z, w), whose matrix is `axes`."""
    qx = w * torso.qx + x * torso.qw + (y * torso.qz - z * torso.qy)
    qy = w * torso.qy + y * torso.qw + (z * torso.qx - x * torso.qz)
    qz = w * torso.qz + z * torso.qw + (x * torso.qy - y * torso.qx)
    qw = w * torso.qw - (x * torso.qx + y * torso.qy + z * torso.qz)
    k = 1.0 / root(qx * qx + qy * qy + qz * qz + qw * qw)
    velocity = times(axes, torso.v + cross(torso.w, torso.r))
    return p + times(axes, torso.r), k * qx, k * qy, k * qz, k * qw, velocity, times(axes, torso.w)


@wp.func
def load_leg(state: Rows, g: int, j: int, action_row: int, sign: float):
    """Read a leg whose hip is hinge `j`."""
    leg = empty_leg(state[g, 0])
    leg.hip = state[g, ANGLES + j]
    leg.ankle = sign * state[g, ANGLES + j + 1]
    leg.hip_rate = state[g, RATES + j]
    leg.ankle_rate = sign * state[g, RATES + j + 1]
    leg.hip_motor = STRENGTH * state[g, action_row + j]
    leg.ankle_motor = (sign * STRENGTH) * state[g, action_row + j + 1]
    return leg


@wp.func
def store_leg(state: Rows, g: int, j: int, sign: float, leg: Leg):
    state[g, ANGLES + j] = leg.hip
    state[g, ANGLES + j + 1] = sign * leg.ankle
    state[g, RATES + j] = leg.hip_rate
    state[g, RATES + j + 1] = sign * leg.ankle_rate


@wp.func
def advance(state: Rows, g: int, action_row: int, interval: int, payload: Scalar):
    """Move lane group `g` by one control step of 1/60 s.

    `state` (groups, rows) holds world position (m), quaternion (x, y, z, w), velocity of the torso's centre (m/s),
    angular velocity (rad/s), both in world axes, hinge angles and rates, at the rows named above, and from
    `action_row` on eight actions in [-1, 1]. The mass matrix is refreshed every `interval` substeps. `payload` is a
    point mass at the torso's centre (kg): one number for the group (0.0 is folded away), or one per environment.
    """
    mass = M0 + payload
    px = state[g, PX]
    pz = state[g, PZ]
    py = state[g, HEIGHT]
    qx = state[g, QUATERNION]
    qy = state[g, QUATERNION + 1]
    qz = state[g, QUATERNION + 2]
    qw = state[g, QUATERNION + 3]
    velocity = vec3(state[g, VELOCITY], state[g, VELOCITY + 1], state[g, VELOCITY + 2])
    omega = vec3(state[g, OMEGA], state[g, OMEGA + 1], state[g, OMEGA + 2])
    leg1 = load_leg(state, g, 0, action_row, SIGN_1)
    leg2 = load_leg(state, g, 2, action_row, SIGN_2)
    leg3 = load_leg(state, g, 4, action_row, SIGN_3)
    leg4 = load_leg(state, g, 6, action_row, SIGN_4)

    axes = rotation(qx, qy, qz, qw)
    up = axes.y  # world up in anchor axes
    zero = px - px
    torso = empty_torso(px)
    torso.r = vec3(zero, zero, zero)
    torso.qx = zero
    torso.qy = zero
    torso.qz = zero
    torso.qw = zero + 1.0
    torso.v = transposed_times(axes, velocity)
    torso.w = transposed_times(axes, omega)

    done = int(0)  # noqa: RUF046, UP018 (Warp: a variable, not a constant)
    while done < SUBSTEPS:
        block = torso_block(px, mass)
        block, factor1 = add_leg(block, leg1, LEG_1)
        block, factor2 = add_leg(block, leg2, LEG_2)
        block, factor3 = add_leg(block, leg3, LEG_3)
        block, factor4 = add_leg(block, leg4, LEG_4)
        inverse, factor1, factor2, factor3, factor4 = complete(block, factor1, factor2, factor3, factor4, torso)

        until = wp.min(done + interval, SUBSTEPS)
        while done < until:
            turned = rotation(torso.qx, torso.qy, torso.qz, torso.qw)
            w, v, a, e, height = torso_motion(torso, turned, up, py)
            moment, force = torso_wrench(mass, w, v, a, e, height)
            n1, f1, hip1, ankle1 = leg_wrench(leg1, LEG_1, w, v, a, e, height)
            n2, f2, hip2, ankle2 = leg_wrench(leg2, LEG_2, w, v, a, e, height)
            n3, f3, hip3, ankle3 = leg_wrench(leg3, LEG_3, w, v, a, e, height)
            n4, f4, hip4, ankle4 = leg_wrench(leg4, LEG_4, w, v, a, e, height)
            moment = moment + ((n1 + n2) + (n3 + n4))
            force = force + ((f1 + f2) + (f3 + f4))

            moment, force = anchor_wrench(torso, turned, moment, force)
            moment, force = eliminate(factor1, hip1, ankle1, moment, force)
            moment, force = eliminate(factor2, hip2, ankle2, moment, force)
            moment, force = eliminate(factor3, hip3, ankle3, moment, force)
            moment, force = eliminate(factor4, hip4, ankle4, moment, force)
            w_dot = sym_times(inverse.angular, moment - times(inverse.x, force))
            v_dot = sym_times(inverse.linear, force) - transposed_times(inverse.x, w_dot)
            leg1 = move_leg(leg1, factor1, hip1, ankle1, w_dot, v_dot)
            leg2 = move_leg(leg2, factor2, hip2, ankle2, w_dot, v_dot)
            leg3 = move_leg(leg3, factor3, hip3, ankle3, w_dot, v_dot)
            leg4 = move_leg(leg4, factor4, hip4, ankle4, w_dot, v_dot)
            torso = move_torso(torso, w_dot, v_dot)
            done = done + 1

    p, x, y, z, s, velocity, omega = to_world(axes, vec3(px, py, pz), qx, qy, qz, qw, torso)
    state[g, PX] = p.x
    state[g, PZ] = p.z
    state[g, HEIGHT] = p.y
    state[g, QUATERNION] = x
    state[g, QUATERNION + 1] = y
    state[g, QUATERNION + 2] = z
    state[g, QUATERNION + 3] = s
    state[g, VELOCITY] = velocity.x
    state[g, VELOCITY + 1] = velocity.y
    state[g, VELOCITY + 2] = velocity.z
    state[g, OMEGA] = omega.x
    state[g, OMEGA + 1] = omega.y
    state[g, OMEGA + 2] = omega.z
    store_leg(state, g, 0, SIGN_1, leg1)
    store_leg(state, g, 2, SIGN_2, leg2)
    store_leg(state, g, 4, SIGN_3, leg3)
    store_leg(state, g, 6, SIGN_4, leg4)
