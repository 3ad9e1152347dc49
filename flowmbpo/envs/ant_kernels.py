"""Warp kernels of the Ant environment: physics, observation, reward, termination and reset in one launch a step.

Not the environment: `ant.py` owns the memory and the torch side. The state of an environment has the rows of
`physics.kernels_ant` and, behind them, what the task adds; from HEIGHT on the rows are those of the observation.
State memory is (groups, rows, width): a group is what one thread computes, `width` environments side by side.
"""

# Function bodies are Warp's language, which has its own types.
# mypy: ignore-errors
import functools

import warp as wp

from flowmbpo.envs.random_kernels import stream_of, uniform
from flowmbpo.physics import ant
from flowmbpo.physics.kernels_ant import (
    ANGLES,
    HEIGHT,
    OMEGA,
    PX,
    PZ,
    QUATERNION,
    RATES,
    STATE_ROWS,
    VELOCITY,
    advance,
)
from flowmbpo.physics.lanes import Scalar, add, div, mul, neg, root, sub  # noqa: F401 (Warp finds operators by name)

UPRIGHT = wp.constant(STATE_ROWS)  # y component of the robot's up
HEADING = wp.constant(STATE_ROWS + 1)  # cosine between the robot's forward and the target
ACTION = wp.constant(STATE_ROWS + 2)  # the last clipped action
REWARD = wp.constant(STATE_ROWS + 2 + ant.NUM_ACTIONS)  # reward of the observation now held
ROWS = STATE_ROWS + 3 + ant.NUM_ACTIONS

OBS_DIM = wp.constant(REWARD - HEIGHT)
NUM_ACTIONS = wp.constant(ant.NUM_ACTIONS)
RATE_SCALE = wp.constant(0.1)
FIRST_RATE, LAST_RATE = wp.constant(RATES - HEIGHT), wp.constant(RATES - HEIGHT + ant.NUM_ACTIONS)
TARGET_X = wp.constant(10000.0)  # m
UPRIGHT_WEIGHT = wp.constant(0.1)
FALLEN_HEIGHT = wp.constant(0.27)  # m

START_HEIGHT, HALF_SQRT2 = wp.constant(ant.START_HEIGHT), wp.constant(ant.START_QUATERNION[3])

# Kept separate products would waste the fused multiply-add of every modern processor.
COMPILER = {"cpu_compiler_flags": f"{wp.config.cpu_compiler_flags or '-march=native'} -ffp-contract=fast"}

RESET_POSITION, RESET_ANGLE, RESET_JOINT, RESET_VELOCITY = (
    wp.constant(x) for x in (0.1, 3.141592653589793 / 24.0, 0.2, 0.25)
)


@wp.func
def describe(px: Scalar, pz: Scalar, height: Scalar, x: Scalar, y: Scalar, z: Scalar, w: Scalar, vx: Scalar):
    """What follows from pose and velocity: upright, heading and the reward of this state."""
    upright = 2.0 * (y * z - w * x)
    dx = TARGET_X - px
    forward_x = 2.0 * (w * w + x * x) - 1.0
    forward_z = 2.0 * (x * z - w * y)
    heading = (forward_x * dx - forward_z * pz) / root(dx * dx + pz * pz)
    return upright, heading, vx + UPRIGHT_WEIGHT * upright + heading + (height - FALLEN_HEIGHT)


@wp.func
def describe_one(state: wp.array3d(dtype=float), g: int, i: int):
    """Fill in the rows UPRIGHT, HEADING and REWARD of one environment."""
    upright, heading, reward = describe(
        state[g, PX, i],
        state[g, PZ, i],
        state[g, HEIGHT, i],
        state[g, QUATERNION, i],
        state[g, QUATERNION + 1, i],
        state[g, QUATERNION + 2, i],
        state[g, QUATERNION + 3, i],
        state[g, VELOCITY, i],
    )
    state[g, UPRIGHT, i] = upright
    state[g, HEADING, i] = heading
    state[g, REWARD, i] = reward


@wp.func
def place(state: wp.array3d(dtype=float), g: int, i: int, p: wp.vec3, q: wp.quat, w: wp.vec3, v: wp.vec3):
    """Write the root of one environment; v is the velocity of the torso's centre."""
    state[g, PX, i] = p[0]
    state[g, HEIGHT, i] = p[1]
    state[g, PZ, i] = p[2]
    for k in range(4):
        state[g, QUATERNION + k, i] = q[k]
    for k in range(3):
        state[g, VELOCITY + k, i] = v[k]
        state[g, OMEGA + k, i] = w[k]


@wp.func
def restart(state: wp.array3d(dtype=float), g: int, i: int, stream: wp.uint64, spread: float):
    """Begin an episode: the start pose, displaced at random where `spread` is 1 and exactly where it is 0."""
    p = wp.vec3(0.0, START_HEIGHT, 0.0) + spread * wp.vec3(
        uniform(stream, 0, RESET_POSITION), uniform(stream, 1, RESET_POSITION), uniform(stream, 2, RESET_POSITION)
    )
    half_angle = spread * 0.5 * uniform(stream, 3, RESET_ANGLE)
    axis = wp.normalize(wp.vec3(uniform(stream, 4, 0.5), uniform(stream, 5, 0.5), uniform(stream, 6, 0.5)))
    u = wp.sin(half_angle) * axis
    c = wp.cos(half_angle)
    # (-1, 0, 0, 1) / sqrt(2) times (u, c)
    q = HALF_SQRT2 * wp.quat(u[0] - c, u[1] + u[2], u[2] - u[1], c + u[0])
    w = spread * wp.vec3(
        uniform(stream, 15, RESET_VELOCITY), uniform(stream, 16, RESET_VELOCITY), uniform(stream, 17, RESET_VELOCITY)
    )
    v = spread * wp.vec3(  # of the body point at the world's origin, as in the reference
        uniform(stream, 18, RESET_VELOCITY), uniform(stream, 19, RESET_VELOCITY), uniform(stream, 20, RESET_VELOCITY)
    )
    place(state, g, i, p, q, w, v + wp.cross(w, p))
    for k in range(NUM_ACTIONS):
        bent = float(k % 2)  # hips straight, ankles bent by 1 rad, those of legs 2 and 3 the other way
        if k == 3 or k == 5:
            bent = -1.0
        state[g, ANGLES + k, i] = bent + spread * uniform(stream, 7 + k, RESET_JOINT)
        state[g, RATES + k, i] = spread * uniform(stream, 21 + k, RESET_VELOCITY)
        state[g, ACTION + k, i] = 0.0
    describe_one(state, g, i)


@wp.func
def observe(state: wp.array3d(dtype=float), g: int, i: int, obs: wp.array2d(dtype=float), env: int):
    for k in range(OBS_DIM):
        value = state[g, HEIGHT + k, i]
        if k >= FIRST_RATE and k < LAST_RATE:
            value = RATE_SCALE * value
        obs[env, k] = value


@wp.kernel(enable_backward=False)
def reset_kernel(
    state: wp.array3d(dtype=float),
    seed: wp.array(dtype=wp.int64),
    steps: wp.array(dtype=wp.int32),
    episodes: wp.array(dtype=wp.int32),
    spread: float,
    obs: wp.array2d(dtype=float),
):
    """Begin a new episode in every environment. One thread per environment."""
    env = wp.tid()
    g = env // state.shape[2]
    i = env % state.shape[2]
    episodes[env] = episodes[env] + 1
    steps[env] = 0
    restart(state, g, i, stream_of(seed[0], env, episodes[env]), spread)
    observe(state, g, i, obs, env)


@wp.kernel(enable_backward=False)
def write_state_kernel(
    joint_q: wp.array2d(dtype=float),
    joint_qd: wp.array2d(dtype=float),
    last_action: wp.array2d(dtype=float),
    state: wp.array3d(dtype=float),
    obs: wp.array2d(dtype=float),
):
    """Take over states given in the reference's coordinates. One thread per environment."""
    env = wp.tid()
    g = env // state.shape[2]
    i = env % state.shape[2]
    p = wp.vec3(joint_q[env, 0], joint_q[env, 1], joint_q[env, 2])
    q = wp.quat(joint_q[env, 3], joint_q[env, 4], joint_q[env, 5], joint_q[env, 6])
    w = wp.vec3(joint_qd[env, 0], joint_qd[env, 1], joint_qd[env, 2])
    v = wp.vec3(joint_qd[env, 3], joint_qd[env, 4], joint_qd[env, 5])
    place(state, g, i, p, q, w, v + wp.cross(w, p))
    for k in range(NUM_ACTIONS):
        state[g, ANGLES + k, i] = joint_q[env, 7 + k]
        state[g, RATES + k, i] = joint_qd[env, 6 + k]
        state[g, ACTION + k, i] = last_action[env, k]
    describe_one(state, g, i)
    observe(state, g, i, obs, env)


@wp.kernel(enable_backward=False)
def read_state_kernel(
    state: wp.array3d(dtype=float), joint_q: wp.array2d(dtype=float), joint_qd: wp.array2d(dtype=float)
):
    """Give the states in the reference's coordinates. One thread per environment."""
    env = wp.tid()
    g = env // state.shape[2]
    i = env % state.shape[2]
    p = wp.vec3(state[g, PX, i], state[g, HEIGHT, i], state[g, PZ, i])
    w = wp.vec3(state[g, OMEGA, i], state[g, OMEGA + 1, i], state[g, OMEGA + 2, i])
    v = wp.vec3(state[g, VELOCITY, i], state[g, VELOCITY + 1, i], state[g, VELOCITY + 2, i]) - wp.cross(w, p)
    for k in range(3):
        joint_q[env, k] = p[k]
        joint_qd[env, k] = w[k]
        joint_qd[env, 3 + k] = v[k]
    for k in range(4):
        joint_q[env, 3 + k] = state[g, QUATERNION + k, i]
    for k in range(NUM_ACTIONS):
        joint_q[env, 7 + k] = state[g, ANGLES + k, i]
        joint_qd[env, 6 + k] = state[g, RATES + k, i]


Payload = wp.array(dtype=Scalar)  # of a number of either lane type


@wp.func
def carried(payload: Payload, g: int):
    return payload[g]


@wp.func
def unloaded(payload: Payload, g: int):
    return 0.0


@functools.cache
def step_kernel(scalar: type, loaded: bool) -> wp.Kernel:
    """The kernel of one control step for `scalar` environments a thread: `float` (one) or `lanes.Lanes` (sixteen).

    Without `loaded` nobody carries a payload and the array is not read.
    """
    payload_of = carried if loaded else unloaded

    @wp.kernel(enable_backward=False, module="unique", module_options={"max_unroll": 1, **COMPILER})
    def ant_step(
        first_group: int,
        state: wp.array3d(dtype=float),
        groups: wp.array2d(dtype=scalar),  # the same memory, one number of `scalar` per row
        actions: wp.array2d(dtype=float),
        seed: wp.array(dtype=wp.int64),
        steps: wp.array(dtype=wp.int32),
        episodes: wp.array(dtype=wp.int32),
        episode_length: int,
        fallen_height: float,
        interval: int,
        spread: float,
        payload: wp.array(dtype=scalar),  # kg, one number of `scalar` per group
        obs: wp.array2d(dtype=float),
        obs_before_reset: wp.array2d(dtype=float),
        reward: wp.array(dtype=float),
        terminated: wp.array(dtype=wp.bool),
        truncated: wp.array(dtype=wp.bool),
    ):
        g = first_group + wp.tid()
        width = state.shape[2]
        for i in range(width):
            env = g * width + i
            reward[env] = state[g, REWARD, i]  # of the observation held before this step
            for k in range(NUM_ACTIONS):
                a = actions[env, k]
                if a > 1.0:
                    a = 1.0
                if a < -1.0:  # written so that a NaN stays one
                    a = -1.0
                state[g, ACTION + k, i] = a

        advance(groups, g, ACTION, interval, payload_of(payload, g))
        upright, heading, next_reward = describe(
            groups[g, PX],
            groups[g, PZ],
            groups[g, HEIGHT],
            groups[g, QUATERNION],
            groups[g, QUATERNION + 1],
            groups[g, QUATERNION + 2],
            groups[g, QUATERNION + 3],
            groups[g, VELOCITY],
        )
        groups[g, UPRIGHT] = upright
        groups[g, HEADING] = heading
        groups[g, REWARD] = next_reward

        for i in range(width):
            env = g * width + i
            observe(state, g, i, obs_before_reset, env)
            count = steps[env] + 1
            fallen = state[g, HEIGHT, i] < fallen_height
            late = count >= episode_length
            terminated[env] = fallen
            truncated[env] = late
            if fallen or late:
                count = 0
                episodes[env] = episodes[env] + 1
                restart(state, g, i, stream_of(seed[0], env, episodes[env]), spread)
            steps[env] = count
            observe(state, g, i, obs, env)

    return ant_step
