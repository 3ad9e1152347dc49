"""The Ant in the mirror plane through its target: z -> -z in the world, left and right legs exchanged.

From a reflected state reflected actions lead to the reflected next state, up to the off-diagonal inertias that the
reference gives the torso (docs/physics.md). Only data; tests hold it against the simulator.
"""

from __future__ import annotations

# Legs 1 and 4, 2 and 3 stand opposite each other. An axis of rotation is a pseudovector: a vertical one (hips) turns
# the other way in a mirror, that of an ankle becomes the axis of the opposite ankle.
_LEGS = (6, 7, 4, 5, 2, 3, 0, 1)
_HIP_AND_ANKLE = (-1, 1) * 4

ACTION = (_LEGS, _HIP_AND_ANKLE)
"""Source and sign of the eight torques."""

# Q = Q_start * d, with d in the torso's frame reflected to (-d_x, d_y, -d_z, d_w).
_QUATERNION, _QUATERNION_SIGN = (4, 3, 2, 1), (-1, -1, -1, -1)
_ANGLES, _RATES, _ACTIONS = ([first + leg for leg in _LEGS] for first in (11, 19, 29))

OBSERVATION = (
    (0, *_QUATERNION, 5, 6, 7, 8, 9, 10, *_ANGLES, *_RATES, 27, 28, *_ACTIONS),
    (1, *_QUATERNION_SIGN, 1, 1, -1, -1, -1, 1, *_HIP_AND_ANKLE, *_HIP_AND_ANKLE, 1, 1, *_HIP_AND_ANKLE),
)
"""Source and sign of the 37 numbers that `AntEnv` lists."""
