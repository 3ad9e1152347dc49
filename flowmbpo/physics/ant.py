"""The numbers of the DFlex Ant, derived from the shapes and densities of its MJCF description.

This is not a simulator and not a general MJCF loader: it holds what `kernels_ant.py` needs, in SI units, and the
recipe by which the reference simulator obtains masses and inertia tensors, including one deviation from mechanics
(see `hadamard_inertia`). Frames are the z-up frames of the MJCF; the world is y-up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

# Loader arguments of the reference simulator; they replace what the MJCF says.
DENSITY = 1000.0  # kg/m^3
ARMATURE = 0.05  # kg m^2, hinges only
JOINT_DAMPING = 1.0 + 10.0  # N m s/rad: joint damping plus limit damping, which is never switched off
LIMIT_STIFFNESS = 1000.0  # N m/rad
CONTACT_KE = 4.0e4  # N/m
CONTACT_KD = 1.0e4  # N s/m^2: multiplied by depth
CONTACT_KF = 3.0e3  # N s/m
CONTACT_MU = 0.75
GRAVITY = 9.81  # m/s^2
ACTION_STRENGTH = 200.0  # N m

SUBSTEPS = 16
SUBSTEP = (1.0 / 60.0) / SUBSTEPS  # s

# Shapes. A leg lies on a horizontal ray of the torso frame in its zero pose: stub (on the torso), upper link, foot.
TORSO_RADIUS = 0.25  # m
LIMB_RADIUS = 0.08
UPPER_LENGTH = math.hypot(0.2, 0.2)  # of the stub too
FOOT_LENGTH = math.hypot(0.4, 0.4)
STUB_LENGTH = UPPER_LENGTH

NUM_LEGS = 4
LEG_YAW = tuple(math.radians(45.0 + 90.0 * leg) for leg in range(NUM_LEGS))
# The MJCF's ankle axes of legs 1 and 4 lie along "up x leg direction", those of 2 and 3 against it.
ANKLE_SIGN = (1.0, -1.0, -1.0, 1.0)

HIP_LIMIT = math.radians(40.0)  # rad, both ways
ANKLE_LOWER = math.radians(30.0)  # of ANKLE_SIGN * angle
ANKLE_UPPER = math.radians(100.0)

START_HEIGHT = 0.75
START_QUATERNION = (-math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5))  # (x, y, z, w): robot z up in a y-up world
START_ANGLES = (0.0, 1.0, 0.0, -1.0, 0.0, -1.0, 0.0, 1.0)

NUM_Q = 15
NUM_QD = 14
NUM_ACTIONS = 8


@dataclass(frozen=True)
class Body:
    """A rigid link: mass (kg), centre of mass (m) and inertia about it (kg m^2), both in link axes."""

    mass: float
    com: np.ndarray
    inertia: np.ndarray


def sphere_inertia(radius: float) -> tuple[float, np.ndarray]:
    """Mass and inertia tensor of a solid sphere."""
    mass = DENSITY * 4.0 / 3.0 * math.pi * radius**3
    return mass, np.eye(3) * 0.4 * mass * radius**2


def capsule_inertia(radius: float, length: float) -> tuple[float, np.ndarray]:
    """Mass and inertia tensor of a solid capsule along its own x axis; `length` is that of the cylinder."""
    cylinder = DENSITY * math.pi * radius**2 * length
    caps = DENSITY * 4.0 / 3.0 * math.pi * radius**3
    axial = (0.5 * cylinder + 0.4 * caps) * radius**2
    transverse = cylinder * (radius**2 / 4 + length**2 / 12) + caps * (
        0.4 * radius**2 + 0.375 * radius * length + 0.25 * length**2
    )
    return cylinder + caps, np.diag([axial, transverse, transverse])


def yaw_matrix(yaw: float) -> np.ndarray:
    """Rotation about z by `yaw` radians."""
    c, s = math.cos(yaw), math.sin(yaw)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def hadamard_inertia(inertia: np.ndarray, rotation: np.ndarray, mass: float, shift: np.ndarray) -> np.ndarray:
    """Inertia in rotated axes about a point `shift` away, the way the reference computes it.

    Mechanics wants the matrix product R I R^T; the reference multiplies element by element. The Ant of the published
    results has these tensors, so they are reproduced and not repaired.
    """
    return rotation * inertia * rotation.T + mass * (shift @ shift * np.eye(3) - np.outer(shift, shift))


def assemble(shapes: list[tuple[float, np.ndarray, np.ndarray, np.ndarray]]) -> Body:
    """Add shapes (mass, inertia, rotation, centre) to one link, one after the other like the reference."""
    mass, com, inertia = 0.0, np.zeros(3), np.zeros((3, 3))
    for shape_mass, shape_inertia, rotation, centre in shapes:
        total = mass + shape_mass
        new_com = (mass * com + shape_mass * centre) / total
        inertia = hadamard_inertia(inertia, np.eye(3), mass, com - new_com) + hadamard_inertia(
            shape_inertia, rotation, shape_mass, centre - new_com
        )
        mass, com = total, new_com
    return Body(mass, com, inertia)


def links() -> list[Body]:
    """The nine links in tree order: torso, then upper link and foot of each leg."""
    sphere = (*sphere_inertia(TORSO_RADIUS), np.eye(3), np.zeros(3))
    limbs = []
    for yaw in LEG_YAW:
        rotation = yaw_matrix(yaw)
        short, foot = (capsule_inertia(LIMB_RADIUS, length) for length in (UPPER_LENGTH, FOOT_LENGTH))
        limbs.append(
            (
                (*short, rotation, rotation[:, 0] * UPPER_LENGTH / 2),
                (*foot, rotation, rotation[:, 0] * FOOT_LENGTH / 2),
            )
        )
    torso = assemble([sphere, *(upper for upper, _ in limbs)])  # a stub is the same capsule as an upper link
    return [torso, *(assemble([shape]) for leg in limbs for shape in leg)]


def leg_axes_inertia(body: Body, yaw: float) -> np.ndarray:
    """Inertia of a leg link in axes (along the leg, ankle axis, up): a true rotation of the link tensor."""
    rotation = yaw_matrix(yaw)
    return rotation.T @ body.inertia @ rotation
