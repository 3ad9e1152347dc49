"""A mirror symmetry of the body, as a policy needs it. Not here: what a given body's mirror image is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

SignedPermutation = tuple[Sequence[int], Sequence[int]]
"""Source and sign: x -> sign * x[source]; doing it twice changes nothing."""


class Reflection(nn.Module):
    """What an observation `[..., O]` and an action `[..., A]` become in the mirror. Has no weights.

    The numbers are buffers, so that they lie in a checkpoint and whoever loads its policy needs nothing else.
    """

    observation_source: Tensor
    observation_sign: Tensor
    action_source: Tensor
    action_sign: Tensor

    def __init__(self, observation: SignedPermutation, action: SignedPermutation) -> None:
        super().__init__()
        for name, (source, sign) in (("observation", observation), ("action", action)):
            self.register_buffer(f"{name}_source", torch.tensor(source))
            self.register_buffer(f"{name}_sign", torch.tensor(sign, dtype=torch.float32))

    def observation(self, x: Tensor) -> Tensor:
        """Of observations, or of their gradients: `[..., O]` -> `[..., O]`."""
        return x.index_select(-1, self.observation_source) * self.observation_sign

    def action(self, x: Tensor) -> Tensor:
        """Of actions, or of their gradients: `[..., A]` -> `[..., A]`."""
        return x.index_select(-1, self.action_source) * self.action_sign
