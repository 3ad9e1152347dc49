"""The deterministic policy of one checkpoint for `mlflow.pyfunc`. Needs PyTorch, safetensors and NumPy, not flowmbpo.

A copy of this file lies in every MLflow model as `code/flowmbpo_policy.py`, beside the checkpoint's own files, so that
the policy can be loaded where flowmbpo is not installed. It repeats the forward pass of `Encoder`, `Actor` and
`ObservationNormalizer`, and what `Reflection` does, operation by operation, because in float32 another order of them
moves actions by more than 1e-6; a test holds the two together. Every observation is encoded, as in closed loop;
policies that were trained open loop (`train.imagination = "alongside"`) encode only one in `horizon` when flowmbpo
evaluates them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

OBSERVATION_LIMIT, MIN_STD = 8.0, 0.01


def _mish(x: Tensor) -> Tensor:
    s = x.sigmoid()
    n = torch.addcmul(s, s, 1 - s)
    return n / (2 - n) * x


def _group_softmax(x: Tensor, group: int) -> Tensor:
    e = x.clamp(-80.0, 80.0).exp().unflatten(-1, (-1, group))
    return (e / e.sum(-1, keepdim=True)).flatten(-2)


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"mish": _mish, "silu": F.silu, "elu": F.elu}


class Policy:
    """tanh(mu(encoder(normalised observation))) from the folder of a checkpoint, or of an exported model."""

    def __init__(self, folder: Path, about: str = "manifest.json", weights: str = "tensors.safetensors") -> None:
        spec = json.loads((folder / about).read_text(encoding="utf-8"))["experiment"]
        self._weights = load_file(folder / weights)
        self._normalize = spec["train"]["normalize_observations"]
        mean, squares, count = (self._weights[f"observations/{name}"] for name in ("mean", "squares", "count"))
        std = (squares / count).sqrt() if count > 0 else torch.ones_like(mean)
        self._mean, self._inverse_std = mean.float(), std.float().clamp_min(MIN_STD).reciprocal()
        model = spec["world_model"]
        self._limit = math.inf if model["kind"] == "simulator" else OBSERVATION_LIMIT
        self._encodes = model.get("encoder") == "mlp"
        self._standardizes = model.get("latent_input") == "standardized"
        self._group = model.get("simnorm_dim", 1)
        self._model_activation = _ACTIVATIONS[model.get("activation", "mish")]
        self._actor_activation = _ACTIVATIONS[spec["actor"]["activation"]]

    def predict(self, observations: Any, params: dict[str, Any] | None = None) -> np.ndarray:
        """Actions (N, A) in [-1, 1], float32, for observations (N, O): an array, a list of lists or a DataFrame."""
        obs = torch.from_numpy(np.array(observations, dtype=np.float32))
        with torch.inference_mode():
            return self.actions(obs).numpy()

    @property
    def observation_dim(self) -> int:
        """Numbers in an observation."""
        return len(self._weights["observations/mean"])

    def actions(self, obs: Tensor) -> Tensor:
        """`predict` for tensors: (N, O) -> (N, A)."""
        z = self._encode(obs)
        if "actor/reflection.action_sign" not in self._weights:
            return self._before_tanh(z).tanh()
        straight, reflected = self._before_tanh(torch.stack((z, self._reflect("observation", z))))
        return ((straight + self._reflect("action", reflected)) / 2).tanh()

    def _reflect(self, what: str, x: Tensor) -> Tensor:
        source, sign = (self._weights[f"actor/reflection.{what}_{part}"] for part in ("source", "sign"))
        return x.index_select(-1, source) * sign

    def _encode(self, x: Tensor) -> Tensor:
        if self._normalize:
            x = ((x - self._mean) * self._inverse_std).clamp(-self._limit, self._limit)
        if not self._encodes:
            return x
        layers = self._count("world_model/encoder.{}.linear.weight")
        for index in range(layers):
            name = f"world_model/encoder.{index}"
            x = self._norm(f"{name}.norm", self._linear(f"{name}.linear", x))
            last = index == layers - 1
            x = _group_softmax(x, self._group) if last else self._model_activation(x)
        return x

    def _before_tanh(self, x: Tensor) -> Tensor:
        if self._standardizes:
            x = self._group * x - 1
        for index in range(self._count("actor/trunk.{}.linear.weight")):
            name = f"actor/trunk.{index}"
            x = self._norm(f"{name}.norm", self._actor_activation(self._linear(f"{name}.linear", x)))
        return self._linear("actor/mean", x)

    def _count(self, pattern: str) -> int:
        return next(index for index in range(1000) if pattern.format(index) not in self._weights)

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _norm(self, name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])


def _load_pyfunc(path: str) -> Policy:
    """What `mlflow.pyfunc.load_model` calls."""
    return Policy(Path(path))
