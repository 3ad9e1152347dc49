"""Recorded transitions as a file: whole episodes, padded to one length, in one safetensors file.

Not here: recording them (`rollout`), learning from them (`algorithms.pwm`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from flowmbpo.algorithms.held_out import HeldOut
from flowmbpo.errors import UserError
from flowmbpo.runs.files import BrokenFile, output_file
from flowmbpo.runs.tensors import open_tensors, write_tensors
from flowmbpo.spec.learning import PretrainSpec, check_recorded
from flowmbpo.spec.schema import EnvSpec

FORMAT = "flowmbpo episodes 1"


def write_recorded(path: Path, episodes: HeldOut, env: EnvSpec, about: Mapping[str, object]) -> None:
    """Write the episodes; `about` says where they come from. Raises WorkFailed when the file cannot be written."""
    words = {"format": FORMAT, "env": env.model_dump_json(), **{key: str(value) for key, value in about.items()}}
    with output_file(path) as temporary:
        write_tensors(temporary, episodes.state_dict(), words)


def read_recorded(pretrain: PretrainSpec, spec: EnvSpec, *, length: int, device: str) -> HeldOut:
    """The recorded episodes, on `device`. Raises UserError where the file is missing, broken, foreign or without an
    episode of `length` transitions, the sequences that a world model learns from."""
    with _opened(pretrain, spec) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        if (rewards := tensors.get("rewards")) is None or rewards.ndim != 2:
            raise BrokenFile("it has no rewards of episodes")
        steps, count = rewards.shape
        sizes = {"obs_dim": spec.observation_dim, "action_dim": spec.action_dim}
        episodes = HeldOut(steps=steps, num_envs=count, device=torch.device(device), **sizes)
        episodes.load_state_dict(tensors)
        lengths = tensors["lengths"].tolist()
        if not lengths or min(lengths) < 1 or max(lengths) > steps:
            raise BrokenFile(f"its lengths are not those of episodes of 1 to {steps} transitions")
        seen = torch.arange(steps + 1)[:, None] <= tensors["lengths"]  # with the observation after the last action
        learned = (tensors["obs"][seen], tensors["actions"], tensors["rewards"][seen[1:]])
        if not all(bool(values.isfinite().all()) for values in learned):
            raise BrokenFile("it holds numbers that are not finite")
        if max(lengths) < length:
            raise BrokenFile(
                f"its longest episode has {max(lengths)} transitions, and the world model learns from sequences of "
                f"{length}"
            )
    return episodes


@contextmanager
def _opened(pretrain: PretrainSpec, spec: EnvSpec) -> Iterator[Any]:
    """The file of such an environment: raises UserError for whatever is wrong with it, here or within."""
    check_recorded(pretrain)
    path = Path(pretrain.data)
    try:
        with open_tensors(path) as file:
            words = file.metadata() or {}
            if words.get("format") != FORMAT:
                raise BrokenFile(f"its format is {words.get('format', 'unknown')!r}, not {FORMAT!r}")
            there, here = json.loads(words.get("env", "null")), spec.model_dump(mode="json")
            if not isinstance(there, dict) or "kind" not in there:
                raise BrokenFile("it does not say in which environment it was recorded")
            if other := {key: value for key, value in there.items() if here.get(key) != value}:
                raise BrokenFile(f"it was recorded in another environment ({json.dumps(other)})")
            yield file
    except (BrokenFile, KeyError, ValueError, RuntimeError, MemoryError) as error:
        reason = f"it has no {error.args[0]}" if isinstance(error, KeyError) else str(error)
        raise UserError(
            f"train.pretrain.data: {path} cannot be used: {reason}. `flowmbpo record RUN --out FILE` makes such a file"
        ) from error
