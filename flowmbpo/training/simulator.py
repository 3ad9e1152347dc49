"""The simulator itself as the world model: nothing is learned, and gradients run through the physics.

Its latent is the normalised observation, without the normaliser's limit: an affine image of the Ant's whole state but
its place on the plane, on which nothing depends. What is not learned cannot be wrong: a policy trained on it says what
the errors of a learned model cost.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn

from flowmbpo.algorithms.normalizers import ObservationNormalizer, Scale
from flowmbpo.envs.ant_gradients import FALLEN_HEIGHT, reward_of, simulate, simulate_vjp
from flowmbpo.models.dynamics import Dynamics
from flowmbpo.models.world_model import PullBack, WorldModel


class Physics(Dynamics):
    """One control step of the undisturbed Ant, on normalised observations."""

    evaluations_per_step = 1
    loss_evaluations = 0.0
    learns_from_prediction = False

    def __init__(self, observations: ObservationNormalizer, mass_matrix_interval: int) -> None:
        super().__init__()
        self._observations, self._interval = observations, mass_matrix_interval

    def next(self, z: Tensor, action: Tensor) -> Tensor:
        """See `Dynamics.next`."""
        given = torch.cat((self._observations.undo(z), action), -1)
        return self._observations(simulate(given.flatten(0, -2), "observation", self._interval).view(z.shape))

    def loss(self, *_: object, **__: object) -> Tensor:
        """There is none."""
        raise TypeError("the simulator has nothing to learn")


class Simulator(WorldModel):
    """The undisturbed Ant under the verbs of a world model; it has no parameters and no loss."""

    def __init__(
        self,
        *,
        observations: ObservationNormalizer,
        reward_scale: Scale,
        mass_matrix_interval: int,
        early_termination: bool,
    ) -> None:
        """`observations` and `reward_scale` are those of the learner, which go on changing between epochs."""
        physics = Physics(observations, mass_matrix_interval)
        super().__init__(encoder=nn.Identity(), dynamics=physics, reward_head=None)
        self._observations, self._reward_scale, self._interval = observations, reward_scale, mass_matrix_interval
        self._fallen_height = FALLEN_HEIGHT if early_termination else -math.inf

    def reward(self, z: Tensor, action: Tensor) -> Tensor:
        """See `WorldModel.reward`: it is that of the state held before the step."""
        return self._reward_scale(reward_of(self._observations.undo(z)))

    def linearized(self, z_TBZ: Tensor, actions_TBA: Tensor) -> list[PullBack]:
        """See `WorldModel.linearized`."""
        scale, widths = self._observations.scale, (z_TBZ.shape[-1], actions_TBA.shape[-1])

        def pull_back(given: Tensor, cotangent: Tensor) -> tuple[Tensor, Tensor]:
            gradient = simulate_vjp(given, cotangent / scale, "observation", self._interval)
            of_obs, of_action = gradient.split(widths, -1)
            return of_obs * scale, of_action

        inputs = torch.cat((self._observations.undo(z_TBZ), actions_TBA), -1)
        return [partial(pull_back, given) for given in inputs.unbind(0)]

    def step(
        self, z: Tensor, action: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `WorldModel.step`: an episode ends where the Ant has fallen."""
        z_next = self.next(z, action)
        standing = self._observations.undo(z_next.detach())[..., 0] >= self._fallen_height
        return z_next, self.reward(z, action), standing.to(z.dtype)

    def continuation(self, z: Tensor, action: Tensor) -> Tensor:
        """See `WorldModel.continuation`."""
        return self.step(z, action)[2]
