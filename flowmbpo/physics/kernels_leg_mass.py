"""What one leg adds to the Ant's mass matrix, as Warp functions of either lane type: its hinges already eliminated.

Frames and symbols are those of `kernels_leg`; the whole matrix is put together in `kernels_mass`.
"""

# Function bodies are Warp's language, which has its own types.
# mypy: ignore-errors
from typing import TypeAlias

import warp as wp

from flowmbpo.physics import ant
from flowmbpo.physics.kernels_leg import (
    C1,
    C2,
    HIP,
    J1,
    J2,
    K1,
    K2,
    L1,
    M1,
    M2,
    T1,
    T2,
    Leg,
    about_torso,
    cos_sin,
    leg_yaw,
)
from flowmbpo.physics.lanes import (  # noqa: F401 (Warp finds operators by name)
    Struct,
    Vec3,
    add,
    axpy,
    div,
    empty_vec3,
    lane_struct,
    mul,
    neg,
    scalar,
    scale,
    sub,
    vec3,
)

ARMATURE = wp.constant(ant.ARMATURE)

empty_sym3 = lane_struct("Sym3", xx=scalar, yy=scalar, zz=scalar, xy=scalar, xz=scalar, yz=scalar)
empty_mat3 = lane_struct("Mat3", x=empty_vec3, y=empty_vec3, z=empty_vec3)  # rows
Sym3: TypeAlias = Struct
Mat3: TypeAlias = Struct

# The leg's part of the factorised mass matrix [[root, C], [C^T, D]]: inverse of D and the columns of C D^-1
# (each a moment about the torso's centre and a force).
empty_leg_factor = lane_struct(
    "LegFactor",
    inv_hh=scalar,
    inv_ha=scalar,
    inv_aa=scalar,
    hip_moment=empty_vec3,
    hip_force=empty_vec3,
    ankle_moment=empty_vec3,
    ankle_force=empty_vec3,
)
LegFactor: TypeAlias = Struct

# 6x6 root block, symmetric: [[angular, coupling], [coupling^T, linear]].
empty_root_block = lane_struct("RootBlock", angular=empty_sym3, coupling=empty_mat3, linear=empty_sym3)
RootBlock: TypeAlias = Struct


@wp.func
def subtract_outer(m: Mat3, a: Vec3, b: Vec3):
    """m - a b^T for a general matrix."""
    m.x = axpy(m.x, -a.x, b)
    m.y = axpy(m.y, -a.y, b)
    m.z = axpy(m.z, -a.z, b)
    return m


@wp.func
def subtract_outer_sym(m: Sym3, a: Vec3, b: Vec3):
    """m - a b^T where the sum over all calls is symmetric."""
    m.xx = m.xx - a.x * b.x
    m.yy = m.yy - a.y * b.y
    m.zz = m.zz - a.z * b.z
    m.xy = m.xy - a.x * b.y
    m.xz = m.xz - a.x * b.z
    m.yz = m.yz - a.y * b.z
    return m


@wp.func
def add_leg(block: RootBlock, leg: Leg, mount: wp.vec3):
    """Add a leg to the root block with its hinges already eliminated; returns the block and the leg's factor."""
    c, s = leg_yaw(leg, mount)
    ca, sa = cos_sin(leg.ankle)
    k1 = mount[2] * K1
    k2 = mount[2] * K2

    # composite inertia of upper link and foot about the hip, leg axes
    bx = L1 + C2 * ca  # foot's centre of mass
    bz = -C2 * sa
    xx = J1 + ca * ca * J2 + sa * sa * T2 + M2 * (bz * bz)
    yy = (J1 + M1 * C1 * C1 + J2) + M2 * (bx * bx + bz * bz)
    zz = (T1 + M1 * C1 * C1) + sa * sa * J2 + ca * ca * T2 + M2 * (bx * bx)
    xy = k1 + k2 * ca
    xz = (T2 - J2) * (ca * sa) - M2 * (bx * bz)
    yz = -k2 * sa
    hx = M1 * C1 + M2 * bx  # first moment of mass; its y is zero
    hz = M2 * bz

    # the same in torso axes
    rx = c * hx
    ry = s * hx
    dx = HIP * mount[0]
    dy = HIP * mount[1]
    mass = M1 + M2
    cs = c * s
    cc = c * c
    ss = s * s
    angular = block.angular
    angular.xx = angular.xx + (cc * xx - 2.0 * (cs * xy) + ss * yy) + (mass * dy * dy + 2.0 * dy * ry)
    angular.yy = angular.yy + (ss * xx + 2.0 * (cs * xy) + cc * yy) + (mass * dx * dx + 2.0 * dx * rx)
    angular.zz = angular.zz + zz + (mass * (dx * dx + dy * dy) + (2.0 * dx * rx + 2.0 * dy * ry))
    angular.xy = angular.xy + cs * (xx - yy) + (cc - ss) * xy - (mass * dx * dy + (dx * ry + dy * rx))
    angular.xz = angular.xz + (c * xz - s * yz) - dx * hz
    angular.yz = angular.yz + (s * xz + c * yz) - dy * hz
    rx = rx + mass * dx
    ry = ry + mass * dy
    zero = xx - xx
    coupling = block.coupling  # plus the cross product matrix of (rx, ry, hz)
    coupling.x = coupling.x + vec3(zero, -hz, ry)
    coupling.y = coupling.y + vec3(hz, zero, -rx)
    coupling.z = coupling.z + vec3(-ry, rx, zero)
    linear = block.linear
    linear.xx = linear.xx + mass
    linear.yy = linear.yy + mass
    linear.zz = linear.zz + mass

    # columns of C: wrench that accelerates one hinge
    hip_moment, hip_force = about_torso(c, s, mount, vec3(xz, yz, zz), vec3(zero, hx, zero))
    swing_x = -(M2 * C2) * sa
    swing_z = -(M2 * C2) * ca
    ankle_moment, ankle_force = about_torso(
        c,
        s,
        mount,
        vec3(k2 * ca, (J2 + M2 * C2 * C2) - L1 * swing_z, yz),
        vec3(swing_x, zero, swing_z),
    )

    # inverse of D = [[hh, ha], [ha, aa]]
    hh = zz + ARMATURE
    aa = J2 + M2 * C2 * C2 + ARMATURE
    scaled = 1.0 / (aa * hh - yz * yz)
    factor = empty_leg_factor(c)
    factor.inv_hh = aa * scaled
    factor.inv_ha = -yz * scaled
    factor.inv_aa = hh * scaled
    factor.hip_moment = axpy(scale(factor.inv_hh, hip_moment), factor.inv_ha, ankle_moment)
    factor.hip_force = axpy(scale(factor.inv_hh, hip_force), factor.inv_ha, ankle_force)
    factor.ankle_moment = axpy(scale(factor.inv_ha, hip_moment), factor.inv_aa, ankle_moment)
    factor.ankle_force = axpy(scale(factor.inv_ha, hip_force), factor.inv_aa, ankle_force)

    angular = subtract_outer_sym(angular, factor.hip_moment, hip_moment)
    block.angular = subtract_outer_sym(angular, factor.ankle_moment, ankle_moment)
    coupling = subtract_outer(coupling, factor.hip_moment, hip_force)
    block.coupling = subtract_outer(coupling, factor.ankle_moment, ankle_force)
    linear = subtract_outer_sym(linear, factor.hip_force, hip_force)
    block.linear = subtract_outer_sym(linear, factor.ankle_force, ankle_force)
    return block, factor
