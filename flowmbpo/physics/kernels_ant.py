"""One control step of the DFlex Ant, as a Warp function of either lane type: sixteen semi-implicit Euler substeps.

Not a kernel and not an environment: `advance` moves the state of one lane group (one environment, or sixteen) and
knows neither reward nor reset. What is computed, and the sources, are in docs/physics.md.

Everything is expressed in the *anchor* axes: those of the torso frame at the start of the control step. The reference
works about the world origin and in world axes, but its result does not depend on that choice, and here nothing loses
precision with the distance that the Ant has walked.
"""

# Function bodies are Warp's language, which has its own types.
# mypy: ignore-errors
from typing import Any

import warp as wp

from flowmbpo.physics import ant
from flowmbpo.physics.kernels_leg import (
    RADIUS,
    add_leg,
    contact_force,
    empty_leg,
    empty_mat3,
    empty_root_block,
    empty_sym3,
    leg_wrench,
    mount_of,
)
from flowmbpo.physics.lanes import (  # noqa: F401 (Warp finds operators by name)
    add,
    any_positive,
    axpy,
    cross,
    div,
    dot,
    empty_vec3,
    lane_struct,
    maximum,
    minimum,
    mul,
    neg,
    root,
    scalar,
    scale,
    sub,
    vec3,
)

# Rows of the state of a lane group. The rows from HEIGHT on are in the order of the observation.
PX, PZ, HEIGHT, QUATERNION, VELOCITY, OMEGA, ANGLES, RATES = (wp.constant(i) for i in (0, 1, 2, 3, 7, 10, 13, 21))
STATE_ROWS = 29

_TORSO = ant.links()[0]
M0 = wp.constant(_TORSO.mass)
I0_XX, I0_YY, I0_ZZ, I0_XY = (wp.constant(float(_TORSO.inertia[i, j])) for i, j in ((0, 0), (1, 1), (2, 2), (0, 1)))
TORSO_RADIUS = wp.constant(ant.TORSO_RADIUS)
G = wp.constant(ant.GRAVITY)
H = wp.constant(ant.SUBSTEP)
SUBSTEPS = wp.constant(ant.SUBSTEPS)
STRENGTH = wp.constant(ant.ACTION_STRENGTH)
LEG_1, LEG_2, LEG_3, LEG_4 = (wp.constant(mount_of(leg)) for leg in range(ant.NUM_LEGS))
SIGN_1, SIGN_2, SIGN_3, SIGN_4 = (wp.constant(sign) for sign in ant.ANKLE_SIGN)

# Torso relative to the anchor: position, orientation, velocity of the body point at the anchor's origin, angular
# velocity, all in anchor axes.
empty_torso = lane_struct("Torso", r=empty_vec3, qx=scalar, qy=scalar, qz=scalar, qw=scalar, v=empty_vec3, w=empty_vec3)

# Inverse of the root block after the hinges are eliminated: X = coupling linear^-1 and both diagonal inverses.
empty_root_inverse = lane_struct("RootInverse", angular=empty_sym3, x=empty_mat3, linear=empty_sym3)


@wp.func
def rotation(x: Any, y: Any, z: Any, w: Any):
    """Matrix of a quaternion; not renormalised, as in the reference."""
    m = empty_mat3(x)
    d = 2.0 * (w * w) - 1.0
    m.x = vec3(d + 2.0 * (x * x), 2.0 * (x * y - w * z), 2.0 * (x * z + w * y))
    m.y = vec3(2.0 * (x * y + w * z), d + 2.0 * (y * y), 2.0 * (y * z - w * x))
    m.z = vec3(2.0 * (x * z - w * y), 2.0 * (y * z + w * x), d + 2.0 * (z * z))
    return m


@wp.func
def times(m: Any, a: Any):
    """m a."""
    return vec3(dot(m.x, a), dot(m.y, a), dot(m.z, a))


@wp.func
def transposed_times(m: Any, a: Any):
    """m^T a."""
    return axpy(axpy(scale(a.x, m.x), a.y, m.y), a.z, m.z)


@wp.func
def sym_times(m: Any, a: Any):
    return vec3(
        m.xx * a.x + m.xy * a.y + m.xz * a.z, m.xy * a.x + m.yy * a.y + m.yz * a.z, m.xz * a.x + m.yz * a.y + m.zz * a.z
    )


@wp.func
def sym_inverse(m: Any):
    """Inverse of a positive definite 3x3 matrix by cofactors."""
    xx = m.yy * m.zz - m.yz * m.yz
    xy = m.xz * m.yz - m.xy * m.zz
    xz = m.xy * m.yz - m.xz * m.yy
    k = 1.0 / (m.xx * xx + m.xy * xy + m.xz * xz)
    inverse = empty_sym3(k)
    inverse.xx = k * xx
    inverse.xy = k * xy
    inverse.xz = k * xz
    inverse.yy = k * (m.xx * m.zz - m.xz * m.xz)
    inverse.yz = k * (m.xy * m.xz - m.xx * m.yz)
    inverse.zz = k * (m.xx * m.yy - m.xy * m.xy)
    return inverse


@wp.func
def invert_root(block: Any):
    inverse = empty_root_inverse(block.linear.xx)
    b = block.coupling
    inverse.linear = sym_inverse(block.linear)
    x = empty_mat3(block.linear.xx)
    x.x = sym_times(inverse.linear, b.x)
    x.y = sym_times(inverse.linear, b.y)
    x.z = sym_times(inverse.linear, b.z)
    rest = block.angular
    rest.xx = rest.xx - dot(x.x, b.x)
    rest.yy = rest.yy - dot(x.y, b.y)
    rest.zz = rest.zz - dot(x.z, b.z)
    rest.xy = rest.xy - dot(x.x, b.y)
    rest.xz = rest.xz - dot(x.x, b.z)
    rest.yz = rest.yz - dot(x.y, b.z)
    inverse.x = x
    inverse.angular = sym_inverse(rest)
    return inverse


@wp.func
def carry_sym(m: Any, axes: Any):
    """R m R^T."""
    x = sym_times(m, axes.x)
    y = sym_times(m, axes.y)
    z = sym_times(m, axes.z)
    m.xx = dot(axes.x, x)
    m.xy = dot(axes.x, y)
    m.xz = dot(axes.x, z)
    m.yy = dot(axes.y, y)
    m.yz = dot(axes.y, z)
    m.zz = dot(axes.z, z)
    return m


@wp.func
def carry_root(inverse: Any, axes: Any, r: Any):
    """The inverse in other axes about another origin: the torso's are turned by `axes` and lie at r there."""
    inverse.angular = carry_sym(inverse.angular, axes)
    inverse.linear = carry_sym(inverse.linear, axes)
    m = inverse.x
    m.x = times(axes, m.x)
    m.y = times(axes, m.y)
    m.z = times(axes, m.z)
    x = empty_mat3(r.x)  # R X R^T + the cross product matrix of r
    x.x = transposed_times(m, axes.x) + vec3(r.x - r.x, -r.z, r.y)
    x.y = transposed_times(m, axes.y) + vec3(r.z, r.x - r.x, -r.x)
    x.z = transposed_times(m, axes.z) + vec3(-r.y, r.x, r.x - r.x)
    inverse.x = x
    return inverse


@wp.func
def carry_leg(factor: Any, axes: Any, r: Any):
    """The same for the wrenches of a leg."""
    factor.hip_force = times(axes, factor.hip_force)
    factor.hip_moment = times(axes, factor.hip_moment) + cross(r, factor.hip_force)
    factor.ankle_force = times(axes, factor.ankle_force)
    factor.ankle_moment = times(axes, factor.ankle_moment) + cross(r, factor.ankle_force)
    return factor


@wp.func
def torso_block(like: Any, mass: Any):
    """Root block of the torso alone, about its centre."""
    zero = like - like
    nothing = vec3(zero, zero, zero)
    block = empty_root_block(like)
    angular = empty_sym3(like)
    angular.xx = zero + I0_XX
    angular.yy = zero + I0_YY
    angular.zz = zero + I0_ZZ
    angular.xy = zero + I0_XY
    angular.xz = zero
    angular.yz = zero
    block.angular = angular
    coupling = empty_mat3(like)
    coupling.x = nothing
    coupling.y = nothing
    coupling.z = nothing
    block.coupling = coupling
    linear = empty_sym3(like)
    linear.xx = zero + mass
    linear.yy = zero + mass
    linear.zz = zero + mass
    linear.xy = zero
    linear.xz = zero
    linear.yz = zero
    block.linear = linear
    return block


@wp.func
def torso_wrench(mass: Any, w: Any, v: Any, a: Any, e: Any, height: Any):
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
def eliminate(factor: Any, hip: Any, ankle: Any, moment: Any, force: Any):
    """Take the reaction of a leg's hinge torques off the wrench on the root."""
    moment = axpy(axpy(moment, -hip, factor.hip_moment), -ankle, factor.ankle_moment)
    force = axpy(axpy(force, -hip, factor.hip_force), -ankle, factor.ankle_force)
    return moment, force


@wp.func
def move_leg(leg: Any, factor: Any, hip: Any, ankle: Any, w_dot: Any, v_dot: Any):
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
def move_torso(torso: Any, w_dot: Any, v_dot: Any):
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
def load_leg(state: wp.array2d(dtype=Any), g: int, j: int, action_row: int, sign: float):
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
def store_leg(state: wp.array2d(dtype=Any), g: int, j: int, sign: float, leg: Any):
    state[g, ANGLES + j] = leg.hip
    state[g, ANGLES + j + 1] = sign * leg.ankle
    state[g, RATES + j] = leg.hip_rate
    state[g, RATES + j + 1] = sign * leg.ankle_rate


@wp.func
def advance(state: wp.array2d(dtype=Any), g: int, action_row: int, interval: int, payload: Any):
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
        # factorise the mass matrix in torso axes and carry the factors over into anchor axes
        block = torso_block(px, mass)
        block, factor1 = add_leg(block, leg1, LEG_1)
        block, factor2 = add_leg(block, leg2, LEG_2)
        block, factor3 = add_leg(block, leg3, LEG_3)
        block, factor4 = add_leg(block, leg4, LEG_4)
        inverse = invert_root(block)
        turned = rotation(torso.qx, torso.qy, torso.qz, torso.qw)
        factor1 = carry_leg(factor1, turned, torso.r)
        factor2 = carry_leg(factor2, turned, torso.r)
        factor3 = carry_leg(factor3, turned, torso.r)
        factor4 = carry_leg(factor4, turned, torso.r)
        inverse = carry_root(inverse, turned, torso.r)

        until = wp.min(done + interval, SUBSTEPS)
        while done < until:
            turned = rotation(torso.qx, torso.qy, torso.qz, torso.qw)
            w = transposed_times(turned, torso.w)
            v = transposed_times(turned, torso.v + cross(torso.w, torso.r))
            e = transposed_times(turned, up)
            a = axpy(cross(w, v), G, e)
            height = py + dot(up, torso.r)
            moment, force = torso_wrench(mass, w, v, a, e, height)
            n1, f1, hip1, ankle1 = leg_wrench(leg1, LEG_1, w, v, a, e, height)
            n2, f2, hip2, ankle2 = leg_wrench(leg2, LEG_2, w, v, a, e, height)
            n3, f3, hip3, ankle3 = leg_wrench(leg3, LEG_3, w, v, a, e, height)
            n4, f4, hip4, ankle4 = leg_wrench(leg4, LEG_4, w, v, a, e, height)
            moment = moment + ((n1 + n2) + (n3 + n4))
            force = force + ((f1 + f2) + (f3 + f4))

            # the wrench on the root, in anchor axes about the anchor's origin
            force = scale(-1.0, times(turned, force))
            moment = cross(torso.r, force) - times(turned, moment)
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

    # back to the world
    moved = times(axes, torso.r)
    velocity = times(axes, torso.v + cross(torso.w, torso.r))
    omega = times(axes, torso.w)
    x = qw * torso.qx + qx * torso.qw + (qy * torso.qz - qz * torso.qy)
    y = qw * torso.qy + qy * torso.qw + (qz * torso.qx - qx * torso.qz)
    z = qw * torso.qz + qz * torso.qw + (qx * torso.qy - qy * torso.qx)
    s = qw * torso.qw - (qx * torso.qx + qy * torso.qy + qz * torso.qz)
    k = 1.0 / root(x * x + y * y + z * z + s * s)

    state[g, PX] = px + moved.x
    state[g, PZ] = pz + moved.z
    state[g, HEIGHT] = py + moved.y
    state[g, QUATERNION] = k * x
    state[g, QUATERNION + 1] = k * y
    state[g, QUATERNION + 2] = k * z
    state[g, QUATERNION + 3] = k * s
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
