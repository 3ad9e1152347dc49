"""The DFlex Ant as a batched environment, torch in and torch out, simulated by our own Warp kernels."""

from __future__ import annotations

import itertools
import math
from concurrent.futures import ThreadPoolExecutor

import torch
import warp as wp

from flowmbpo.envs import ant_kernels as kernels
from flowmbpo.envs.contract import Step, check_whole
from flowmbpo.physics import ant
from flowmbpo.physics.lanes import WIDTH, Lanes
from flowmbpo.physics.runtime import start_warp

# Groups of sixteen for each further thread. One takes 11 us to compute; handing work over and waiting for it takes 20.
MIN_GROUPS_PER_THREAD = 8
LARGEST_SEED = 2**63 - 1


class AntEnv:
    """A four-legged robot of 182 kg that is paid for running along +x of a y-up world.

    Action (8), each clipped to [-1, 1]: torque / 200 N m on hip_1, ankle_1, ..., hip_4, ankle_4.

    Observation (37): 0 height of the torso (m); 1:5 its quaternion (x, y, z, w); 5:8 its velocity (m/s) and 8:11 its
    angular velocity (rad/s) in world axes; 11:19 hinge angles (rad); 19:27 0.1 x hinge rates (rad/s); 27 the vertical
    component of the robot's own up; 28 the cosine between its forward and the direction to a target 10 km ahead;
    29:37 the action just applied, zero after a reset.

    Reward of the state *held before* the step: obs[5] + 0.1 obs[27] + obs[28] + (obs[0] - 0.27).
    Terminated when the torso is below 0.27 m (unless `early_termination` is off); truncated after `episode_length`
    steps. Either starts a new episode at once.

    Start: 0.75 m above the ground; with `stochastic_init` displaced by uniform random amounts (docs/physics.md).

    One step is 1/60 s in sixteen substeps; the mass matrix is refreshed every `mass_matrix_interval` of them, once a
    step by default as in the reference. Environment i does the same, bit for bit, in a batch of any size.
    """

    obs_dim = int(kernels.OBS_DIM)
    action_dim = ant.NUM_ACTIONS
    forward_velocity_index: int | None = 5  # of the observation: velocity along +x, m/s
    loaded = False  # whether the torso carries a payload (see `disturbed_ant`)

    def __init__(
        self,
        num_envs: int,
        device: str | torch.device = "cpu",
        seed: int = 0,
        stochastic_init: bool = True,
        episode_length: int = 1000,
        early_termination: bool = True,
        mass_matrix_interval: int = ant.SUBSTEPS,
    ) -> None:
        check_whole("num_envs", num_envs, 1)
        check_whole("episode_length", episode_length, 1)
        check_whole("mass_matrix_interval", mass_matrix_interval, 1, ant.SUBSTEPS)
        check_whole("seed", seed, 0, LARGEST_SEED)
        self.device = _checked_device(device)
        self.num_envs = num_envs
        self.episode_length = episode_length
        self.early_termination = early_termination
        self.stochastic_init = stochastic_init
        self.mass_matrix_interval = mass_matrix_interval

        width = WIDTH if self.device.type == "cpu" else 1
        self._groups = math.ceil(num_envs / width)
        padded = self._groups * width
        # (groups, rows, width). One environment a group: rows outermost in memory, so that the neighbouring threads of
        # a GPU read neighbours.
        if width > 1:
            self._state = torch.zeros(self._groups, kernels.ROWS, width)
        else:
            self._state = torch.zeros(kernels.ROWS, self._groups, 1, device=self.device).transpose(0, 1)

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
            return torch.zeros(padded, *shape, dtype=dtype, device=self.device)

        self._actions = zeros(self.action_dim)
        self._obs, self._obs_before_reset = zeros(self.obs_dim), zeros(self.obs_dim)
        self._reward = zeros()
        self._terminated, self._truncated = zeros(dtype=torch.bool), zeros(dtype=torch.bool)
        self._joint_q, self._joint_qd = zeros(ant.NUM_Q), zeros(ant.NUM_QD)
        self._steps, self._episodes = zeros(dtype=torch.int32), zeros(dtype=torch.int32)
        self._seed = torch.tensor([seed], dtype=torch.int64, device=self.device)
        self._payload = zeros()  # kg
        self._step = Step(
            *(
                t[:num_envs]
                for t in (self._obs, self._reward, self._terminated, self._truncated, self._obs_before_reset)
            )
        )
        self._prepare_launches(width, padded)
        self._start_unobserved()

    def _prepare_launches(self, width: int, padded: int) -> None:
        """Record every launch once; a step then only replays."""
        start_warp()
        warp_device = wp.device_from_torch(self.device)
        spread = 1.0 if self.stochastic_init else 0.0
        state, obs, obs_before_reset = (wp.from_torch(t) for t in (self._state, self._obs, self._obs_before_reset))
        actions, joint_q, joint_qd = (wp.from_torch(t) for t in (self._actions, self._joint_q, self._joint_qd))
        seed, steps, episodes = (wp.from_torch(t) for t in (self._seed, self._steps, self._episodes))
        reward, terminated, truncated = (wp.from_torch(t) for t in (self._reward, self._terminated, self._truncated))

        def record(kernel: wp.Kernel, threads: int, inputs: list[object], block_dim: int = 64) -> wp.Launch:
            return wp.launch(
                kernel, threads, inputs, device=warp_device, block_dim=block_dim, record_cmd=True, record_tape=False
            )

        def record_steps() -> list[wp.Launch]:
            scalar = Lanes if width > 1 else wp.float32
            # the same memory as `state`, one `scalar` per row
            groups = wp.from_torch(self._state if width > 1 else self._state[:, :, 0], dtype=scalar)
            payload = wp.from_torch(self._payload.view(-1, width) if width > 1 else self._payload, dtype=scalar)
            fallen_height = kernels.FALLEN_HEIGHT if self.early_termination else -math.inf
            shares = self._shares() if self.device.type == "cpu" else [(0, self._groups)]
            return [
                record(
                    kernels.step_kernel(scalar, self.loaded),
                    count,
                    [
                        first,
                        state,
                        groups,
                        actions,
                        seed,
                        steps,
                        episodes,
                        self.episode_length,
                        fallen_height,
                        self.mass_matrix_interval,
                        spread,
                        payload,
                        obs,
                        obs_before_reset,
                        reward,
                        terminated,
                        truncated,
                    ],
                    block_dim=32,  # few environments should still spread over many multiprocessors
                )
                for first, count in shares
            ]

        self._launch_reset = record(kernels.reset_kernel, padded, [state, seed, steps, episodes, spread, obs])
        self._launch_write = record(kernels.write_state_kernel, padded, [joint_q, joint_qd, actions, state, obs])
        self._launch_read = record(kernels.read_state_kernel, padded, [state, joint_q, joint_qd])
        self._launch_steps = record_steps()
        self._helpers = ThreadPoolExecutor(len(self._launch_steps) - 1) if len(self._launch_steps) > 1 else None

    def _shares(self) -> list[tuple[int, int]]:
        """Groups (first, count) of each CPU thread: a Warp launch runs on one core, but releases the interpreter."""
        threads = max(1, min(torch.get_num_threads(), self._groups // MIN_GROUPS_PER_THREAD))
        edges = [self._groups * thread // threads for thread in range(threads + 1)]
        return [(first, last - first) for first, last in itertools.pairwise(edges)]

    def _start_unobserved(self) -> None:
        """Until the first reset: the exact start pose, a zero observation, and its reward."""
        pose = [0.0, ant.START_HEIGHT, 0.0, *ant.START_QUATERNION, *ant.START_ANGLES]
        self._joint_q.copy_(torch.tensor(pose))
        self._joint_qd.zero_()
        self._actions.zero_()
        self._launch_write.launch(self._stream())
        self._obs.zero_()
        self._state[:, kernels.REWARD] = -kernels.FALLEN_HEIGHT

    def _stream(self) -> wp.Stream | None:
        """The stream on which torch works now, so that launches keep its order and can be captured with it."""
        return wp.stream_from_torch(torch.cuda.current_stream(self.device)) if self.device.type == "cuda" else None

    def reset(self) -> torch.Tensor:
        """Begin a new episode in every environment; returns the observations (num_envs, 37)."""
        self._launch_reset.launch(self._stream())
        return self._step.obs

    def reseed(self, seed: int) -> None:
        """Start the random streams again from `seed`; running episodes go on."""
        check_whole("seed", seed, 0, LARGEST_SEED)
        self._seed.fill_(seed)
        self._episodes.zero_()

    def step(self, actions: torch.Tensor) -> Step:
        """Advance by one control step of 1/60 s with `actions` (num_envs, 8); never waits for the device."""
        if actions.shape != (self.num_envs, self.action_dim):
            raise ValueError(
                f"actions have shape {tuple(actions.shape)}; expected ({self.num_envs}, {self.action_dim}): "
                "one row per environment, one column per hinge"
            )
        self._actions[: self.num_envs].copy_(actions.detach())
        self._simulate()
        return self._step

    def _simulate(self) -> None:
        if self._helpers is None:
            self._launch_steps[0].launch(self._stream())
        else:
            others = [self._helpers.submit(launch.launch) for launch in self._launch_steps[1:]]
            self._launch_steps[0].launch()
            for other in others:
                other.result()

    def get_state(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Copies of joint_q (num_envs, 15) and joint_qd (num_envs, 14) in the reference's order (docs/physics.md)."""
        self._launch_read.launch(self._stream())
        return self._joint_q[: self.num_envs].clone(), self._joint_qd[: self.num_envs].clone()

    def set_state(
        self, joint_q: torch.Tensor, joint_qd: torch.Tensor, last_action: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Put every environment into a given state and return its observation.

        joint_q (num_envs, 15), joint_qd (num_envs, 14), last_action (num_envs, 8; zero by default, it is only
        observed). Step counters start again at zero.
        """
        for name, given, columns in (
            ("joint_q", joint_q, ant.NUM_Q),
            ("joint_qd", joint_qd, ant.NUM_QD),
            ("last_action", last_action, self.action_dim),
        ):
            if given is not None and given.shape != (self.num_envs, columns):
                raise ValueError(f"{name} has shape {tuple(given.shape)}; expected ({self.num_envs}, {columns})")
        self._joint_q[: self.num_envs].copy_(joint_q)
        self._joint_qd[: self.num_envs].copy_(joint_qd)
        self._actions.zero_()
        if last_action is not None:
            self._actions[: self.num_envs].copy_(last_action)
        self._launch_write.launch(self._stream())
        self._steps.zero_()
        return self._step.obs

    def _resumable(self) -> dict[str, torch.Tensor]:
        n = self.num_envs
        rows = self._state.transpose(1, 2).reshape(-1, kernels.ROWS)[:n]
        return {
            "state": rows,
            "obs": self._obs[:n],
            "steps": self._steps[:n],
            "episodes": self._episodes[:n],
            "seed": self._seed,
        }

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Copies of all that decides the future: physical state, observation, step counters and random streams."""
        return {name: tensor.clone() for name, tensor in self._resumable().items()}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Continue exactly where `state_dict` was taken, on any device and with the same number of environments."""
        own = self._resumable()
        for name, tensor in own.items():
            if name not in state:
                raise ValueError(f"the environment's saved state has no {name!r}; it has {sorted(state)}")
            if state[name].shape != tensor.shape:
                raise ValueError(
                    f"saved {name!r} has shape {tuple(state[name].shape)}, this environment needs {tuple(tensor.shape)}"
                )
        width = self._state.shape[2]
        padded = torch.zeros(self._groups * width, kernels.ROWS, device=self.device)
        padded[:] = self._state.transpose(1, 2).reshape(-1, kernels.ROWS)
        padded[: self.num_envs].copy_(state["state"])
        self._state.copy_(padded.reshape(self._groups, width, kernels.ROWS).transpose(1, 2))
        for name in own.keys() - {"state"}:
            own[name].copy_(state[name])


def _checked_device(device: str | torch.device) -> torch.device:
    try:
        checked = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device is {device!r}; allowed: 'cpu', 'cuda', 'cuda:N'") from error
    if checked.type not in ("cpu", "cuda"):
        raise ValueError(f"device is {device!r}; allowed: 'cpu', 'cuda', 'cuda:N'")
    if checked.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(f"device is {device!r}, but torch finds no CUDA GPU on this machine; use 'cpu'")
        if checked.index is None:
            checked = torch.device("cuda", torch.cuda.current_device())
        if checked.index >= torch.cuda.device_count():
            raise ValueError(f"device is {device!r}, but this machine has {torch.cuda.device_count()} CUDA GPUs")
    return checked
