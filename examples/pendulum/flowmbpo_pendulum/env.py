"""The pendulum: g = 10 m/s², 1 kg on a rod of 1 m, 0.05 s a step, as Gymnasium's Pendulum-v1."""

import numpy as np
import torch

from flowmbpo.envs import Step
from flowmbpo.envs.scenes import Scene
from flowmbpo.physics.ant_pose import Capsule

DT = 0.05


class Pendulum:
    """Observation: cos and sin of the angle from upright, and the rate / 8. Reward of the state held before the step:
    1 - (angle² + rate² / 10) / 16.3, from 0 (hanging, at full speed) to 1. Never terminates."""

    obs_dim, action_dim, forward_velocity_index = 3, 1, None

    def __init__(self, num_envs, seed=0, device="cpu", episode_length=200, torque=2.0):
        self.num_envs, self.device, self.episode_length = num_envs, torch.device(device), episode_length
        self.torque = torque
        self._generator = torch.Generator(self.device)
        self.reset()
        self.reseed(seed)

    def reset(self):
        self._angle, self._rate = self._start()
        self._steps = torch.zeros(self.num_envs, dtype=torch.long, device=self.device)
        return self._obs()

    def reseed(self, seed):
        self._generator.manual_seed(seed)

    def step(self, actions):
        if actions.shape != (self.num_envs, 1):
            raise ValueError(f"actions have shape {tuple(actions.shape)}; expected {(self.num_envs, 1)}")
        angle = torch.remainder(self._angle + torch.pi, 2 * torch.pi) - torch.pi
        reward = 1.0 - (angle**2 + 0.1 * self._rate**2) / 16.3
        torque = self.torque * actions[:, 0].detach().clamp(-1.0, 1.0)
        self._rate = (self._rate + DT * (15.0 * self._angle.sin() + 3.0 * torque)).clamp(-8.0, 8.0)
        self._angle = self._angle + DT * self._rate
        self._steps = self._steps + 1
        before, done = self._obs(), self._steps >= self.episode_length
        start = self._start()  # for all, at every step: the random stream does not depend on who is done
        self._angle, self._rate = torch.where(done, start[0], self._angle), torch.where(done, start[1], self._rate)
        self._steps = torch.where(done, 0, self._steps)
        return Step(self._obs(), reward, torch.zeros_like(done), done, before)

    def state_dict(self):
        state = {"angle": self._angle, "rate": self._rate, "steps": self._steps}
        return {name: tensor.clone() for name, tensor in state.items()} | {"generator": self._generator.get_state()}

    def load_state_dict(self, state):
        self._angle, self._rate, self._steps = (state[name].clone() for name in ("angle", "rate", "steps"))
        self._generator.set_state(state["generator"].cpu())

    def _start(self):
        unit = 2 * torch.rand(2, self.num_envs, generator=self._generator, device=self.device) - 1
        return torch.pi * unit[0], unit[1]

    def _obs(self):
        return torch.stack((self._angle.cos(), self._angle.sin(), self._rate / 8), dim=1)

    def scene(self):
        """For replays: the rod turns about the z axis."""

        def poses(env, obs):
            half = 0.5 * torch.atan2(obs[:, 1], obs[:, 0]).cpu().numpy()
            zero = np.zeros_like(half)
            return np.stack((zero, zero + 1.1, zero, zero, zero, np.sin(half), np.cos(half)), axis=1)[:, None]

        return Scene([Capsule(0, (0.0, 0.0, 0.0), (0.0, 1.0, 0.0), 0.05, "rod")], DT, poses)
