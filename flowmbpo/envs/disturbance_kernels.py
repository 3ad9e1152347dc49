"""Warp kernels of what disturbs an Ant: its actions before a step, what it shows after one. One thread per environment.

Not the task: `ant_kernels` has physics, reward, termination and reset, and knows nothing of this. Every random number
follows from the seed, the environment and its count of steps, so none is stored.
"""

# Function bodies are Warp's language, which has its own types.
# mypy: ignore-errors
import warp as wp

from flowmbpo.envs.ant_kernels import NUM_ACTIONS, OBS_DIM
from flowmbpo.envs.random_kernels import normal, stream_of, uniform

FIRST_ACTION = wp.constant(OBS_DIM - NUM_ACTIONS)  # of the observation
SALT = wp.constant(wp.int64(0x5DEECE66D))  # keeps these streams apart from those of the starts
# Draws of one step's stream: the delay, two for the normal number of each torque, then of each observed number, of the
# old episode and of the new one.
DELAY, TORQUE, BEFORE, AFTER = (wp.constant(i) for i in (0, 1, 64, 256))
PAYLOAD = wp.constant(64)  # draw of the episode's own stream; the start takes those below


@wp.func
def show(
    true_obs: wp.array2d(dtype=float),
    commands: wp.array3d(dtype=float),
    columns: wp.array(dtype=wp.int32),
    noise: float,
    stream: wp.uint64,
    first_draw: int,
    env: int,
    shown: wp.array2d(dtype=float),
):
    """Write one frame: the columns to be seen with their noise; of the actions what was commanded, not what acted."""
    for j in range(columns.shape[0]):
        k = columns[j]
        if k >= FIRST_ACTION:
            shown[env, j] = commands[env, 0, k - FIRST_ACTION]
        else:
            value = true_obs[env, k]
            if noise > 0.0:
                value = value + noise * normal(stream, first_draw + 2 * k)
            shown[env, j] = value


@wp.func
def draw_payload(seed: wp.int64, episode: int, largest: float, env: int, payload: wp.array(dtype=float)):
    payload[env] = largest * (0.5 + uniform(stream_of(seed, env, episode), PAYLOAD, 0.5))


@wp.kernel(enable_backward=False)
def act_kernel(
    seed: wp.array(dtype=wp.int64),
    ticks: wp.array(dtype=wp.int32),
    torque_noise: float,
    commands: wp.array3d(dtype=float),
    actions: wp.array2d(dtype=float),
):
    """Turn commanded actions into those that act: an earlier one, with noise. `commands` keeps them, newest first."""
    env = wp.tid()
    stream = stream_of(seed[0] + SALT, env, ticks[env])
    kept = commands.shape[1]
    chosen = wp.min(int((0.5 + uniform(stream, DELAY, 0.5)) * float(kept)), kept - 1)
    for k in range(NUM_ACTIONS):
        a = actions[env, k]
        if a > 1.0:
            a = 1.0
        if a < -1.0:  # written so that a NaN stays one
            a = -1.0
        for i in range(kept - 1):
            commands[env, kept - 1 - i, k] = commands[env, kept - 2 - i, k]
        commands[env, 0, k] = a
        a = commands[env, chosen, k]
        if torque_noise > 0.0:
            a = a + torque_noise * normal(stream, TORQUE + 2 * k)
        actions[env, k] = a


@wp.kernel(enable_backward=False)
def begin_kernel(
    seed: wp.array(dtype=wp.int64),
    ticks: wp.array(dtype=wp.int32),
    episodes: wp.array(dtype=wp.int32),
    largest_payload: float,
    observation_noise: float,
    columns: wp.array(dtype=wp.int32),
    true_obs: wp.array2d(dtype=float),
    commands: wp.array3d(dtype=float),
    payload: wp.array(dtype=float),
    obs: wp.array2d(dtype=float),
):
    """Forget what was, draw a payload and show the first frame, `obs.shape[1] / columns.shape[0]` times."""
    env = wp.tid()
    stream = stream_of(seed[0] + SALT, env, ticks[env])
    ticks[env] = ticks[env] + 1
    draw_payload(seed[0], episodes[env], largest_payload, env, payload)
    for k in range(NUM_ACTIONS):
        for i in range(commands.shape[1]):
            commands[env, i, k] = 0.0
        commands[env, 0, k] = true_obs[env, FIRST_ACTION + k]
    show(true_obs, commands, columns, observation_noise, stream, AFTER, env, obs)
    for j in range(columns.shape[0], obs.shape[1]):
        obs[env, j] = obs[env, j - columns.shape[0]]


@wp.kernel(enable_backward=False)
def observe_kernel(
    seed: wp.array(dtype=wp.int64),
    ticks: wp.array(dtype=wp.int32),
    episodes: wp.array(dtype=wp.int32),
    largest_payload: float,
    observation_noise: float,
    columns: wp.array(dtype=wp.int32),
    true_obs: wp.array2d(dtype=float),
    true_obs_before_reset: wp.array2d(dtype=float),
    terminated: wp.array(dtype=wp.bool),
    truncated: wp.array(dtype=wp.bool),
    commands: wp.array3d(dtype=float),
    payload: wp.array(dtype=float),
    obs: wp.array2d(dtype=float),
    obs_before_reset: wp.array2d(dtype=float),
):
    """Show what a step led to, the newest frame first, and begin anew where the episode has ended."""
    env = wp.tid()
    width = columns.shape[0]
    stream = stream_of(seed[0] + SALT, env, ticks[env])
    ticks[env] = ticks[env] + 1
    show(true_obs_before_reset, commands, columns, observation_noise, stream, BEFORE, env, obs_before_reset)
    for j in range(width, obs.shape[1]):
        obs_before_reset[env, j] = obs[env, j - width]
    if terminated[env] or truncated[env]:
        draw_payload(seed[0], episodes[env], largest_payload, env, payload)
        for k in range(NUM_ACTIONS):
            for i in range(commands.shape[1]):
                commands[env, i, k] = 0.0
        show(true_obs, commands, columns, observation_noise, stream, AFTER, env, obs)
        for j in range(width, obs.shape[1]):
            obs[env, j] = obs[env, j - width]
    else:
        for j in range(obs.shape[1]):
            obs[env, j] = obs_before_reset[env, j]
