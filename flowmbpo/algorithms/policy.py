"""The deterministic policy as it is evaluated: observations in, actions and predicted rewards out.

Two protocols, and training and evaluation use the same one: *closed loop* encodes every observation; *open loop* (the
published PWM) encodes one observation in `horizon` and acts on the model's own latents in between.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flowmbpo.algorithms.normalizers import ObservationNormalizer, Scale
from flowmbpo.models.actor import Actor
from flowmbpo.models.world_model import WorldModel
from flowmbpo.spec.schema import TrainSpec


class DeterministicPolicy:
    """tanh(mu(z)) with z from the observation, in every step or once every `reencode_interval` steps."""

    def __init__(
        self,
        *,
        world_model: WorldModel,
        actor: Actor,
        observations: ObservationNormalizer,
        reward_scale: Scale,
        train: TrainSpec,
    ) -> None:
        self.world_model = world_model
        self.actor = actor
        self.observations = observations
        self.reward_scale = reward_scale.value
        self.reencode_interval = train.horizon if train.imagination == "alongside" else 1
        self._steps = 0
        self._z: Tensor | None = None

    def begin(self, num_envs: int) -> None:
        """Forget earlier episodes. (`num_envs` belongs to the protocol; any batch size works.)"""
        self._steps = 0
        self._z = None

    def encode(self, obs: Tensor) -> Tensor:
        """Latent of a raw observation: `[..., O]` -> `[..., Z]`."""
        return self.world_model.encode(self.observations(obs))

    @torch.no_grad()
    def __call__(self, obs: object) -> Tensor:
        """Actions `[B, A]` in (-1, 1) for observations `[B, O]` (a tensor, an array or lists), each encoded anew.

        Raises ValueError for another width.
        """
        raw = torch.as_tensor(obs, dtype=torch.float32, device=self.reward_scale.device)
        if (width := raw.shape[-1]) != (wanted := len(self.observations.moments.mean)):
            raise ValueError(f"observations of {width} numbers: this policy was trained on {wanted}")
        return self.actor.mean_action(self.encode(raw))

    @torch.no_grad()
    def act(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Actions `[B, A]` in (-1, 1) and predicted unscaled rewards `[B]` for observations `[B, O]`."""
        if self._z is None or self._steps % self.reencode_interval == 0:
            self._z = self.encode(obs)
        self._steps += 1
        action = self.actor.mean_action(self._z)
        reward = self.world_model.reward(self._z, action) * self.reward_scale
        if self.reencode_interval > 1:
            self._z = self.world_model.next(self._z, action)
        return action, reward
