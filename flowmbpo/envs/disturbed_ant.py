"""The Ant where its next state is not certain or not all of its state is seen: five disturbances, off unless asked for.

Not the task, which stays that of `ant.AntEnv`: reward and termination are those of the true state.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import warp as wp

from flowmbpo.envs import disturbance_kernels as kernels
from flowmbpo.envs.ant import AntEnv

VELOCITIES = frozenset((*range(5, 11), *range(19, 27)))
"""Of the Ant's 37 observed numbers: velocity and angular velocity of the torso, hinge rates."""

MAX_DELAY = 8
MAX_STACK = 16


class DisturbedAnt(AntEnv):
    """`AntEnv` with any of these; with none of them it is `AntEnv`, bit for bit and at its cost.

    torque_noise: deviation of a normal number added to every action after clipping, each step; the sum is clipped too.
    payload: kg; each episode the torso carries a point mass at its centre, uniform from 0 to this, which nobody sees.
    action_delay: control steps; at each step the action of 0 to this many steps ago acts, all equally likely and drawn
    anew each time (zero before the episode's first).
    observation_noise: deviation of a normal number added to every observed number but the actions, in its own unit.
    hidden_velocities: 14 of the 37 numbers are not shown (`VELOCITIES`).
    observation_stack: the last so many observations side by side, newest first; at a start the first one repeated.

    The observed action is the commanded one, clipped. Random numbers follow from the seed, the environment and its
    count of steps: equal in a batch of any size, and a resumed environment draws the same.
    """

    def __init__(
        self,
        num_envs: int,
        device: str | torch.device = "cpu",
        seed: int = 0,
        torque_noise: float = 0.0,
        payload: float = 0.0,
        action_delay: int = 0,
        observation_noise: float = 0.0,
        hidden_velocities: bool = False,
        observation_stack: int = 1,
        **task: Any,
    ) -> None:
        """`task` is what `AntEnv` takes besides."""
        sizes = {"torque_noise": torque_noise, "payload": payload, "observation_noise": observation_noise}
        for name, value in sizes.items():
            if not 0.0 <= value < math.inf:
                raise ValueError(f"{name} is {value}; allowed: 0 (off) or a positive number")
        for name, count, low, high in (
            ("action_delay", action_delay, 0, MAX_DELAY),
            ("observation_stack", observation_stack, 1, MAX_STACK),
        ):
            if not low <= count <= high:
                raise ValueError(f"{name} is {count}; allowed: a whole number from {low} to {high}")
        self.loaded = payload > 0
        super().__init__(num_envs, device, seed, **task)
        acts = torque_noise > 0 or action_delay > 0
        self._disturbed = acts or self.loaded or observation_noise > 0 or hidden_velocities or observation_stack > 1
        if not self._disturbed:
            return
        columns = [k for k in range(AntEnv.obs_dim) if not (hidden_velocities and k in VELOCITIES)]
        self.obs_dim = len(columns) * observation_stack
        self.forward_velocity_index = None if hidden_velocities else AntEnv.forward_velocity_index
        padded = len(self._obs)

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
            return torch.zeros(padded, *shape, dtype=dtype, device=self.device)

        self._commands = zeros(action_delay + 1, self.action_dim)
        self._shown, self._shown_before_reset = zeros(self.obs_dim), zeros(self.obs_dim)
        self._ticks = zeros(dtype=torch.int32)
        self._columns = torch.tensor(columns, dtype=torch.int32, device=self.device)
        shown = self._shown[:num_envs], self._shown_before_reset[:num_envs]
        self._step = self._step._replace(obs=shown[0], obs_before_reset=shown[1])
        self._record_disturbances(padded, torque_noise, payload, observation_noise)

    def _record_disturbances(self, padded: int, torque_noise: float, payload: float, observation_noise: float) -> None:
        def of(*tensors: torch.Tensor) -> list[object]:
            return [wp.from_torch(t) for t in tensors]

        def record(kernel: wp.Kernel, inputs: list[object]) -> wp.Launch:
            device = wp.device_from_torch(self.device)
            return wp.launch(kernel, padded, inputs, device=device, record_cmd=True, record_tape=False)

        clock = of(self._seed, self._ticks)
        how = [*clock, *of(self._episodes), payload, observation_noise, *of(self._columns)]
        kept = of(self._commands, self._payload, self._shown)
        self._launch_act = record(kernels.act_kernel, [*clock, torque_noise, *of(self._commands, self._actions)])
        self._launch_begin = record(kernels.begin_kernel, [*how, *of(self._obs), *kept])
        ends = of(self._obs, self._obs_before_reset, self._terminated, self._truncated)
        self._launch_observe = record(kernels.observe_kernel, [*how, *ends, *kept, *of(self._shown_before_reset)])

    def reset(self) -> torch.Tensor:
        """See `AntEnv.reset`."""
        obs = super().reset()
        if self._disturbed:
            self._launch_begin.launch(self._stream())
        return obs

    def reseed(self, seed: int) -> None:
        """See `AntEnv.reseed`."""
        super().reseed(seed)
        if self._disturbed:
            self._ticks.zero_()

    def _simulate(self) -> None:
        if self._disturbed:
            self._launch_act.launch(self._stream())
        super()._simulate()
        if self._disturbed:
            self._launch_observe.launch(self._stream())

    def set_state(
        self, joint_q: torch.Tensor, joint_qd: torch.Tensor, last_action: torch.Tensor | None = None
    ) -> torch.Tensor:
        """See `AntEnv.set_state`; the payload is drawn as for an episode that starts here."""
        obs = super().set_state(joint_q, joint_qd, last_action)
        if self._disturbed:
            self._launch_begin.launch(self._stream())
        return obs

    def _resumable(self) -> dict[str, torch.Tensor]:
        kept = super()._resumable()
        if self._disturbed:
            n = self.num_envs
            kept |= {
                "commands": self._commands[:n],
                "payload": self._payload[:n],
                "shown": self._shown[:n],
                "ticks": self._ticks[:n],
            }
        return kept
