"""Recorded transitions as a file: whole episodes, padded to one length, in one safetensors file.

Not here: recording them (`rollout`), learning from them (`algorithms.pwm`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flowmbpo.algorithms.held_out import HeldOut
from flowmbpo.envs.contract import Env
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


def read_recorded(pretrain: PretrainSpec, env: Env, spec: EnvSpec) -> HeldOut:
    """The recorded episodes, on the device of `env`. Raises UserError where it is missing, broken or foreign."""
    with open_recorded(pretrain, spec) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        steps, count = tensors["rewards"].shape
        episodes = HeldOut.of(env, steps=steps, episodes=count)
        episodes.load_state_dict(tensors)
    return episodes


@contextmanager
def open_recorded(pretrain: PretrainSpec, spec: EnvSpec) -> Iterator[Any]:
    """The file, whose header has been read: raises UserError where it is missing, broken or foreign, here or within."""
    check_recorded(pretrain)
    path = Path(pretrain.data)
    try:
        with open_tensors(path) as file:
            words = file.metadata() or {}
            if words.get("format") != FORMAT:
                raise BrokenFile(f"its format is {words.get('format', 'unknown')!r}, not {FORMAT!r}")
            there, here = json.loads(words["env"]), spec.model_dump(mode="json")
            if other := {key: value for key, value in there.items() if here.get(key) != value}:
                raise BrokenFile(f"it was recorded in another environment ({json.dumps(other)})")
            yield file
    except (BrokenFile, KeyError, ValueError, RuntimeError, MemoryError) as error:
        raise UserError(
            f"train.pretrain.data: {path} cannot be used: {error}. `flowmbpo record RUN --out FILE` makes such a file"
        ) from error
