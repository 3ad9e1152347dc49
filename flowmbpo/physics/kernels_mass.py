"""The factorised mass matrix of the Ant, as Warp functions of either lane type: legs eliminated, root block inverted.

Not the dynamics: `kernels_leg_mass.add_leg` gives the parts, here they are put together in torso axes and carried over
into those of the anchor (see `kernels_ant`).
"""

# Function bodies are Warp's language, which has its own types.
# mypy: ignore-errors
from typing import TypeAlias

import warp as wp

from flowmbpo.physics import ant
from flowmbpo.physics.kernels_leg_mass import LegFactor, Mat3, RootBlock, Sym3, empty_mat3, empty_root_block, empty_sym3
from flowmbpo.physics.lanes import (  # noqa: F401 (Warp finds operators by name)
    Scalar,
    Struct,
    Vec3,
    add,
    axpy,
    cross,
    div,
    dot,
    empty_vec3,
    lane_struct,
    mul,
    neg,
    scalar,
    scale,
    sub,
    vec3,
)

_TORSO = ant.links()[0]
M0 = wp.constant(_TORSO.mass)
I0_XX, I0_YY, I0_ZZ, I0_XY = (wp.constant(float(_TORSO.inertia[i, j])) for i, j in ((0, 0), (1, 1), (2, 2), (0, 1)))

# Inverse of the root block after the hinges are eliminated: X = coupling linear^-1 and both diagonal inverses.
empty_root_inverse = lane_struct("RootInverse", angular=empty_sym3, x=empty_mat3, linear=empty_sym3)
RootInverse: TypeAlias = Struct

# Torso relative to the anchor: position, orientation, velocity of the body point at the anchor's origin, angular
# velocity, all in anchor axes.
empty_torso = lane_struct("Torso", r=empty_vec3, qx=scalar, qy=scalar, qz=scalar, qw=scalar, v=empty_vec3, w=empty_vec3)
Torso: TypeAlias = Struct


@wp.func
def rotation(x: Scalar, y: Scalar, z: Scalar, w: Scalar):
    """Matrix of a quaternion; not renormalised, as in the reference."""
    m = empty_mat3(x)
    d = 2.0 * (w * w) - 1.0
    m.x = vec3(d + 2.0 * (x * x), 2.0 * (x * y - w * z), 2.0 * (x * z + w * y))
    m.y = vec3(2.0 * (x * y + w * z), d + 2.0 * (y * y), 2.0 * (y * z - w * x))
    m.z = vec3(2.0 * (x * z - w * y), 2.0 * (y * z + w * x), d + 2.0 * (z * z))
    return m


@wp.func
def times(m: Mat3, a: Vec3):
    """m a."""
    return vec3(dot(m.x, a), dot(m.y, a), dot(m.z, a))


@wp.func
def transposed_times(m: Mat3, a: Vec3):
    """m^T a."""
    return axpy(axpy(scale(a.x, m.x), a.y, m.y), a.z, m.z)


@wp.func
def sym_times(m: Sym3, a: Vec3):
    return vec3(
        m.xx * a.x + m.xy * a.y + m.xz * a.z, m.xy * a.x + m.yy * a.y + m.yz * a.z, m.xz * a.x + m.yz * a.y + m.zz * a.z
    )


@wp.func
def sym_inverse(m: Sym3):
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
def invert_root(block: RootBlock):
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
def carry_sym(m: Sym3, axes: Mat3):
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
def carry_root(inverse: RootInverse, axes: Mat3, r: Vec3):
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
def carry_leg(factor: LegFactor, axes: Mat3, r: Vec3):
    """The same for the wrenches of a leg."""
    factor.hip_force = times(axes, factor.hip_force)
    factor.hip_moment = times(axes, factor.hip_moment) + cross(r, factor.hip_force)
    factor.ankle_force = times(axes, factor.ankle_force)
    factor.ankle_moment = times(axes, factor.ankle_moment) + cross(r, factor.ankle_force)
    return factor


@wp.func
def torso_block(like: Scalar, mass: Scalar):
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
def complete(
    block: RootBlock, factor1: LegFactor, factor2: LegFactor, factor3: LegFactor, factor4: LegFactor, torso: Torso
):
    """The factors in anchor axes, from those in the axes of the torso whose legs are all in `block`."""
    turned = rotation(torso.qx, torso.qy, torso.qz, torso.qw)
    inverse = carry_root(invert_root(block), turned, torso.r)
    factor1 = carry_leg(factor1, turned, torso.r)
    factor2 = carry_leg(factor2, turned, torso.r)
    factor3 = carry_leg(factor3, turned, torso.r)
    factor4 = carry_leg(factor4, turned, torso.r)
    return inverse, factor1, factor2, factor3, factor4
