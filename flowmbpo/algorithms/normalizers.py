"""Running statistics that bring observations, rewards and returns to scale. Rewards are scaled, never shifted.

A shift would change the task: with the mean subtracted, a robot that stands while the average policy walks earns less
than nothing, and falling (which ends the episode at value 0) becomes the better choice.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from flowmbpo.models.reflection import Reflection


class RunningMoments:
    """Mean and variance of everything seen so far, merged batch by batch (Chan, Golub and LeVeque 1983).

    Float64, because 10^8 samples do not fit into the 24 bits of a float32 sum. A batch that is not finite is left out,
    without a look at it from the host.
    """

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        self.mean = torch.zeros(shape, dtype=torch.float64, device=device)
        self.squares = torch.zeros(shape, dtype=torch.float64, device=device)  # summed squared deviations

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Take in `x` `[..., *shape]`."""
        batch = x.detach().reshape(-1, *self.mean.shape).double()
        variance, mean = torch.var_mean(batch, dim=0, correction=0)
        total = self.count + len(batch)
        delta = mean - self.mean
        squares = variance * len(batch) + delta.square() * (self.count * len(batch) / total)
        usable = torch.isfinite(squares).all()
        self.squares += torch.where(usable, squares, 0.0)
        self.mean += torch.where(usable, delta * (len(batch) / total), 0.0)
        self.count += torch.where(usable, float(len(batch)), 0.0)

    @property
    def std(self) -> Tensor:
        """Standard deviation `shape`, float32; 1 before anything was seen."""
        variance = self.squares / self.count.clamp_min(1.0)
        return torch.where(self.count > 0, variance.sqrt(), 1.0).float()

    def state_dict(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, tensor in self.state_dict().items():
            tensor.copy_(state[name])


class OrdinaryMoments(RunningMoments):
    """Moments of a number, without outliers: values further than `OUTLIER` times what is usual from the batch's median.

    One broken reward would otherwise make all others vanish. They are counted. At most `share` of a batch is taken for
    outliers.
    """

    OUTLIER = 100.0

    def __init__(self, device: torch.device, share: float) -> None:
        super().__init__((), device)
        self.outliers = torch.zeros((), dtype=torch.long, device=device)
        self._rank = 1 - share

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Take in `x` of any shape."""
        x = x.detach().flatten()
        middle = x.nanmedian()  # what is not finite is counted elsewhere, and would make outliers of all others
        distance = (x - middle).abs()
        known = torch.where(self.count > 0, self.std, 0.0)
        # "lower": of a few values too, the largest is not its own measure.
        usual = torch.maximum(torch.nanquantile(distance, self._rank, interpolation="lower"), known)
        # Where nothing ever varied, the first variation is no outlier.
        ordinary = (distance <= self.OUTLIER * usual) | (usual == 0)
        self.outliers += (~ordinary).sum()
        super().update(torch.where(ordinary, x, middle))

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        super().load_state_dict({"outliers": self.outliers, **state})  # not counted before version 0.2.0


class ObservationNormalizer:
    """o -> (o - mean) / std per feature, within +-`limit`; the identity when switched off.

    With a `reflection` every observation is counted with its mirror image, so that a normalised observation can be
    reflected as a raw one can.
    """

    MIN_STD = 0.01  # a feature that hardly moves is not blown up to noise

    def __init__(
        self,
        obs_dim: int,
        device: torch.device,
        *,
        enabled: bool,
        limit: float,
        reflection: Reflection | None = None,
    ) -> None:
        self.enabled = enabled
        self.limit = limit
        self.reflection = reflection
        self.moments = RunningMoments((obs_dim,), device)
        self._refresh()

    def update(self, obs: Tensor) -> None:
        """Take in observations `[..., O]`."""
        if self.enabled:
            self.moments.update(obs if self.reflection is None else torch.cat((obs, self.reflection.observation(obs))))
            self._refresh()

    def __call__(self, obs: Tensor) -> Tensor:
        """`[..., O]` -> `[..., O]`."""
        if not self.enabled:
            return obs.clone()  # never the environment's own buffer, which changes with its next step
        z = torch.sub(obs, self._mean).mul_(self._inverse_std)
        return z.clamp_(-self.limit, self.limit) if math.isfinite(self.limit) else z

    def undo(self, z: Tensor) -> Tensor:
        """The inverse, of what was within the limit: `[..., O]` -> `[..., O]`."""
        return torch.addcmul(self._mean, z, self._std) if self.enabled else z

    @property
    def scale(self) -> Tensor:
        """What a unit of each normalised feature is in its own unit `[O]`."""
        return self._std if self.enabled else torch.ones_like(self._std)

    def state_dict(self) -> dict[str, Tensor]:
        return self.moments.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.moments.load_state_dict(state)
        self._refresh()

    def _refresh(self) -> None:
        self._mean = self.moments.mean.float()
        self._std = self.moments.std.clamp_min(self.MIN_STD)
        self._inverse_std = self._std.reciprocal()


class Scale:
    """x -> x / running standard deviation of x, or x itself. A factor only: zero stays zero and order stays order."""

    MIN = 1e-2

    def __init__(self, kind: Literal["running_std", "none"], device: torch.device) -> None:
        self.kind = kind
        self.moments = OrdinaryMoments(device, share=0.01)

    def update(self, x: Tensor) -> None:
        """Take in `x` of any shape."""
        self.moments.update(x)

    @property
    def value(self) -> Tensor:
        """The divisor, a 0-d tensor, at least `MIN`."""
        if self.kind == "none":
            return torch.ones((), device=self.moments.mean.device)
        return self.moments.std.clamp_min(self.MIN)

    @property
    def center(self) -> Tensor:
        """The running mean of the scaled values, a 0-d tensor; 0 before anything was seen."""
        return self.moments.mean.float() / self.value

    def __call__(self, x: Tensor) -> Tensor:
        return x if self.kind == "none" else x / self.value

    def state_dict(self) -> dict[str, Tensor]:
        return self.moments.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.moments.load_state_dict(state)
