"""Checkpoints: what is in them, how they are verified, which are kept. Knows no network and no environment.

A *checkpoint* is deployable: the networks, the normalisers and the spec. A *resumable state* is everything that
bit-exact continuation needs besides (optimisers, replay, random states, simulator, counters). Both are folders of
`manifest.json`, `state.json` and safetensors files, complete or absent, each file with its size and SHA-256.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from flowmbpo.data_types import State
from flowmbpo.errors import UserError, WorkFailed
from flowmbpo.runs.files import BrokenFile, atomic_folder, read_json, sha256, write_json
from flowmbpo.runs.layout import RunFiles, epoch_folder

FORMAT = 1
TENSORS, _STATE, _MANIFEST = "tensors.safetensors", "state.json", "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """A verified folder: its manifest and where it lies. `load` reads the state."""

    path: Path
    manifest: Mapping[str, Any]

    @property
    def epoch(self) -> int:
        return int(self.manifest["epoch"])

    @property
    def env_steps(self) -> int:
        return int(self.manifest["env_steps"])

    def load(self, device: str = "cpu") -> State:
        """The state as it was given to `save`, tensors on `device`. Raises BrokenFile."""
        from flowmbpo.runs import state_tree, tensors

        try:
            skeleton = read_json(self.path / _STATE)
            state = state_tree.join(skeleton, tensors.read_tensors(self.path / TENSORS, device))
        except (KeyError, TypeError, RecursionError) as error:
            raise BrokenFile(f"{self.path}: state and tensors do not belong together ({error})") from error
        if not isinstance(state, dict):
            raise BrokenFile(f"{self.path / _STATE}: not a state")
        return state


def save(folder: Path, state: Mapping[str, object], *, kind: str, about: Mapping[str, object]) -> Path:
    """Write `state` as one complete folder. `about` goes into the manifest and must hold `epoch` and `env_steps`.

    Raises WorkFailed when the disk is full or the folder cannot be written; what was there before stays intact.
    """
    from flowmbpo.runs import state_tree, tensors

    skeleton, by_name = state_tree.split(dict(state))
    try:
        with atomic_folder(folder) as temporary:
            digest = tensors.write_tensors(temporary / TENSORS, by_name)
            write_json(temporary / _STATE, skeleton)
            files = {
                TENSORS: {"sha256": digest, "bytes": (temporary / TENSORS).stat().st_size},
                _STATE: {
                    "sha256": sha256(temporary / _STATE),
                    "bytes": (temporary / _STATE).stat().st_size,
                },
            }
            manifest = {"format": FORMAT, "kind": kind, **about, "files": files}
            write_json(temporary / _MANIFEST, manifest)
    except OSError as error:
        raise WorkFailed(
            f"could not write {folder}: {error.strerror or error}. Earlier checkpoints are intact; make room or "
            "choose another directory, then continue with `flowmbpo run --resume`"
        ) from error
    return folder


def verify(folder: Path, kind: str) -> Checkpoint:
    """Check manifest, sizes and checksums. Raises BrokenFile with the reason; executes nothing."""
    manifest = read_json(folder / _MANIFEST)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise BrokenFile(f"{folder / _MANIFEST}: not a manifest of flowmbpo")
    if manifest.get("format") != FORMAT:
        raise BrokenFile(f"{folder}: written in format {manifest.get('format')!r}, this version reads format {FORMAT}")
    if manifest.get("kind") != kind:
        raise BrokenFile(f"{folder}: holds a {manifest.get('kind')!r}, not a {kind!r}")
    if not all(isinstance(manifest.get(key), int) for key in ("epoch", "env_steps")):
        raise BrokenFile(f"{folder / _MANIFEST}: epoch or env_steps is missing")
    if set(manifest["files"]) != {TENSORS, _STATE}:  # names are never joined to a path unless they are ours
        raise BrokenFile(f"{folder / _MANIFEST}: unexpected files {sorted(map(str, manifest['files']))}")
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.is_file() or path.is_symlink():
            raise BrokenFile(f"{path}: missing")
        if not isinstance(entry, dict) or path.stat().st_size != entry.get("bytes"):
            raise BrokenFile(f"{path}: truncated or of another size than its manifest says")
        if sha256(path) != entry.get("sha256"):
            raise BrokenFile(f"{path}: contents changed since they were written (checksum differs)")
    return Checkpoint(folder, manifest)


def newest(folder: Path, epochs: list[int], kind: str) -> tuple[Checkpoint | None, list[str]]:
    """The newest intact folder among `epochs`, and why newer ones were passed over."""
    problems: list[str] = []
    for epoch in sorted(epochs, reverse=True):
        try:
            return verify(folder / epoch_folder(epoch), kind), problems
        except BrokenFile as error:
            problems.append(str(error))
    return None, problems


def fingerprint(folder: Path) -> str:
    """Checksum of a state's tensors, as its manifest says: two states with the same one are equally far. Empty where
    the manifest cannot be read."""
    try:
        return str(read_json(folder / _MANIFEST)["files"][TENSORS]["sha256"])
    except (BrokenFile, KeyError, TypeError):
        return ""


class Candidate(Protocol):
    """A checkpoint that may be chosen, on disk or in a store. `rating` is R as training evaluated it: later evaluations
    of other numbers of episodes do not change which checkpoint is the best."""

    @property
    def epoch(self) -> int | None: ...
    @property
    def rating(self) -> float | None: ...


@dataclass(frozen=True)
class Evaluated:
    """A checkpoint on disk, by what its manifest says; nothing of it is verified."""

    epoch: int
    rating: float | None


def evaluated(files: RunFiles) -> list[Evaluated]:
    """The run's checkpoints, ascending."""
    return [Evaluated(epoch, _evaluated_reward(files.checkpoint(epoch))) for epoch in files.checkpoint_epochs()]


def _evaluated_reward(folder: Path) -> float | None:
    try:
        return float(read_json(folder / _MANIFEST)["evaluation"]["eval/mean_reward"])
    except (ValueError, KeyError, TypeError):  # never evaluated, or broken
        return None


_C = TypeVar("_C", bound=Candidate)


def select(candidates: Sequence[_C], which: str, *, several: bool = True) -> list[_C]:
    """Of one run's checkpoints those called `best`, `last`, by an epoch or, if `several` may be, `all`, ascending.

    The best has the highest rating, of equals the earliest; where none was evaluated it is the last. Raises UserError
    for a choice that names none, and when there is nothing to choose from.
    """
    ordered = sorted(candidates, key=lambda candidate: candidate.epoch or 0)
    if not ordered:
        raise UserError("the run has no checkpoint yet, so there is no policy")
    if which == "all" and several:
        return ordered
    if which == "last":
        return ordered[-1:]
    if which == "best":
        return [best(ordered) or ordered[-1]]
    named = [candidate for candidate in ordered if str(candidate.epoch) == which]
    if not named:
        epochs = ", ".join(str(epoch) for epoch in dict.fromkeys(candidate.epoch for candidate in ordered))
        allowed = f"best, last, {'all, ' if several else ''}{epochs}"
        why = "one checkpoint is wanted here" if which == "all" else "the run has no such checkpoint"
        raise UserError(f"--checkpoint {which}: {why}; allowed are {allowed}")
    return named[-1:]


def best(ordered: Sequence[_C]) -> _C | None:
    """The checkpoint with the highest rating; None where none was evaluated."""
    rated = [c for c in ordered if c.rating is not None and not math.isnan(c.rating)]
    return max(rated, key=lambda c: c.rating or 0.0, default=None)


def keep(files: RunFiles, interval: int, written: int, resumables: int = 1) -> None:
    """Retention: checkpoints on the `interval`, the best, the last and that of the epoch just written stay; only the
    newest resumable states stay.

    The one just written need not be the last: a run killed after a checkpoint goes on from the state before it.
    """
    epochs = files.checkpoint_epochs()
    wanted = {epoch for epoch in epochs if epoch % interval == 0} | {written, *epochs[-1:]}
    if (top := best(evaluated(files))) is not None:
        wanted.add(top.epoch)
    for epoch in epochs:
        if epoch not in wanted:
            shutil.rmtree(files.checkpoint(epoch), ignore_errors=True)
    for epoch in files.resume_epochs()[:-resumables]:
        shutil.rmtree(files.resume / epoch_folder(epoch), ignore_errors=True)
    for folder in (files.checkpoints, files.resume):  # what a killed process was writing; only one trains a run
        for unfinished in folder.glob(".epoch-*"):
            shutil.rmtree(unfinished, ignore_errors=True)
