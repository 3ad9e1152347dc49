"""Measures the simulator on this machine; the numbers behind `flowmbpo bench sim`."""

from __future__ import annotations

import time
from collections.abc import Callable

from flowmbpo.data_types import Document

HORIZON = 16
ROUNDS = 5  # the fastest of several short rounds: other work on the machine can only slow one down


def measure_simulator(num_envs: int, seconds: float, device: str = "cpu", gradients: bool = False) -> Document:
    """Control steps per second of the Ant under random actions, resets included.

    Runs for about `seconds` after compiling and warming up. `env_steps_per_second` is that of the fastest of five
    rounds, `env_steps_per_second_mean` that of all together. `gradients` adds what
    `measure_gradients` gives. Raises ValueError for an impossible argument.
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
        **(measure_gradients(num_envs, seconds, device) if gradients else {}),
    }


def measure_gradients(num_envs: int, seconds: float, device: str) -> Document:
    """Processor or device milliseconds of a rollout of 16 control steps: forward alone and with its gradient.

    `gradient_ratio` is that of the two; both in turn in every round, the fastest of each counts. The gradient is that
    of the last observations with respect to all actions.
    """
    import torch

    from flowmbpo.envs import AntEnv
    from flowmbpo.envs.ant_gradients import simulate

    start = AntEnv(num_envs=num_envs, device=device, seed=0).reset().clone()
    generator = torch.Generator(start.device).manual_seed(0)
    actions = [
        (2.0 * torch.rand(num_envs, AntEnv.action_dim, generator=generator, device=start.device) - 1.0).requires_grad_()
        for _ in range(HORIZON)
    ]

    def rollout() -> torch.Tensor:
        obs = start
        for action in actions:
            obs = simulate(torch.cat((obs, action), 1), "observation", 16)
        return obs

    def forward() -> None:
        with torch.no_grad():
            rollout()

    def both() -> None:
        torch.autograd.grad(rollout(), actions, torch.ones_like(start))

    def milliseconds(work: Callable[[], None]) -> float:
        clock = time.process_time if start.device.type == "cpu" else time.perf_counter
        begin = clock()
        work()
        if start.device.type == "cuda":
            torch.cuda.synchronize()
        return 1e3 * (clock() - begin)

    compiling = time.perf_counter()
    both()
    compiled = time.perf_counter() - compiling
    times: list[tuple[float, float]] = []
    until = time.perf_counter() + seconds
    while len(times) < ROUNDS or time.perf_counter() < until:
        times.append((milliseconds(forward), milliseconds(both)))
    fastest_forward, fastest_both = (min(column) for column in zip(*times, strict=True))
    return {
        "gradient_horizon": HORIZON,
        "gradient_forward_ms": fastest_forward,
        "gradient_both_ms": fastest_both,
        "gradient_ratio": fastest_both / fastest_forward,
        "gradient_startup_seconds": compiled,
    }
