"""Measures the simulator on this machine; the numbers behind `flowmbpo bench sim`."""

from __future__ import annotations

import time
from typing import Any

ROUNDS = 5  # the fastest of several short rounds: other work on the machine can only slow one down


def measure_sim(num_envs: int, seconds: float, device: str = "cpu") -> dict[str, Any]:
    """Control steps per second of the Ant under random actions, resets included.

    Runs for about `seconds` after compiling and warming up. `env_steps_per_second` is that of the fastest of five
    rounds, `env_steps_per_second_mean` that of all together. Raises ValueError for an impossible argument.
    """
    if not seconds > 0:
        raise ValueError(f"seconds is {seconds}; allowed: any positive number")

    import torch

    from flowmbpo.envs import AntEnv

    started = time.perf_counter()
    env = AntEnv(num_envs=num_envs, device=device, seed=0)
    generator = torch.Generator(env.device).manual_seed(0)
    actions = [
        2.0 * torch.rand(num_envs, env.action_dim, generator=generator, device=env.device) - 1.0 for _ in range(16)
    ]

    def finish() -> None:
        if env.device.type == "cuda":
            torch.cuda.synchronize(env.device)

    def run(steps: int) -> float:
        begin = time.perf_counter()
        for step in range(steps):
            env.step(actions[step % len(actions)])
        finish()
        return time.perf_counter() - begin

    env.reset()
    run(1)
    startup = time.perf_counter() - started
    run(64)
    per_round = seconds / ROUNDS
    steps = max(1, round(per_round * 64 / run(64)))
    times = [run(steps) for _ in range(ROUNDS)]
    return {
        "device": str(env.device),
        "num_envs": num_envs,
        "env_steps_per_second": num_envs * steps / min(times),
        "env_steps_per_second_mean": num_envs * steps * ROUNDS / sum(times),
        "microseconds_per_env_step": 1e6 * min(times) / (num_envs * steps),
        "substeps_per_step": 16,
        "threads": torch.get_num_threads() if env.device.type == "cpu" else None,
        "startup_seconds": startup,
    }
