"""Whether a run may be continued here: how its spec, code and data differ from today's. Reads; continues nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from flowmbpo import __version__
from flowmbpo.errors import UserError
from flowmbpo.runs.checkpoint import Checkpoint
from flowmbpo.runs.files import sha256
from flowmbpo.runs.journal import RECORDED_TAG, all_tags
from flowmbpo.runs.layout import RunFiles
from flowmbpo.spec import extensions
from flowmbpo.spec.identity import diff
from flowmbpo.spec.problems import RegistryError
from flowmbpo.spec.registry import UnknownExperiment, find_registry, load_registry
from flowmbpo.spec.schema import Experiment
from flowmbpo.tracking import code_state
from flowmbpo.tracking.provenance import package_version, usable_cpus
from flowmbpo.training.devices import choose_device, describe

_PACKAGES = ("torch", "warp-lang")  # they decide the numbers too
_COMMIT, _UNCOMMITTED = "git commit", "uncommitted changes"


def code_versions() -> dict[str, str]:
    """What computes a run's numbers: flowmbpo, its commit, torch, Warp and extensions; empty where it is unknown."""
    code = code_state.installed()
    known = {_COMMIT: code.commit, _UNCOMMITTED: "yes" if code.dirty else "no"} if code.commit else {}
    names = (*_PACKAGES, *extensions.packages())
    return {"flowmbpo": __version__, **known, **{name: package_version(name) for name in names}}


def code_changes(then: Mapping[str, str]) -> list[str]:
    """How today's versions differ from those of a run, where both are known (`not_compared` has the rest)."""
    now = code_versions()
    compared = [name for name in now if name != _UNCOMMITTED and now[name] and then.get(name)]
    return [f"{name}: {then[name]} -> {now[name]}" for name in compared if then[name] != now[name]]


def not_compared(then: Mapping[str, str]) -> list[str]:
    """What may have changed since a run began without anybody being able to tell, and why."""
    now, found = code_versions(), []
    if not now.get(_COMMIT):
        found.append(f"{_COMMIT}: {then.get(_COMMIT) or 'unknown'} then, unknown now ({code_state.installed().reason})")
    elif not then.get(_COMMIT):
        found.append(f"{_COMMIT}: unknown then, {now[_COMMIT]} now")
    edited = [code.get(_UNCOMMITTED, "unknown") for code in (then, now)]
    if "yes" in edited:
        found.append(f"{_UNCOMMITTED}: {edited[0]} then, {edited[1]} now")
    unknown = [name for name in ("flowmbpo", *_PACKAGES) if not (now[name] and then.get(name))]
    return found + [f"{name}: {then.get(name) or 'unknown'} then, {now[name] or 'unknown'} now" for name in unknown]


def continue_with_threads(then: int | None, accept_changes: bool) -> str:
    """Compute with as many threads as the run did before (None: unknown), because sums of another number of parts are
    rounded differently; with `accept_changes` as many as are usual here. Returns what to tell, empty for nothing."""
    here = torch.get_num_threads()
    if not then or then == here:
        return ""
    if accept_changes:
        return f"threads: {then} -> {here}, so the results may differ in the last bits"
    torch.set_num_threads(then)
    cpus = usable_cpus()
    slow = f"; there are only {cpus} CPUs here, --accept-changes gives up exactness for speed" if then > cpus else ""
    return f"the run goes on with {then} threads as before, not {here}: only then is its continuation exact{slow}"


def continue_on(then: str, wanted: str) -> tuple[str, str]:
    """The device for a run that computed on `then` before (empty: unknown), since another one rounds differently, and
    what to tell. Raises UserError where `wanted` is "auto" and there is no such device, or as `choose_device`."""
    kind = "cpu" if then.startswith("cpu") else "cuda" if then else wanted
    if wanted == "auto" and kind == "cuda" and not torch.cuda.is_available():
        raise UserError(
            f"the run computes on {then}, and no GPU can be used here: continue it where there is one, or give up an "
            "exact continuation with --device cpu"
        )
    device = choose_device(kind if wanted == "auto" else wanted)
    here = describe(device)
    return device, f"device: {then} -> {here}, so the results differ in the last bits" if then not in ("", here) else ""


def registry_changes(stored: Experiment, overrides: Sequence[str], registry: Path | None) -> list[str]:
    """How the run's spec differs from what the same name and the same `--set` mean in today's registry."""
    file = find_registry(registry)
    try:
        today = load_registry(registry).resolve(stored.name, list(overrides)).spec
    except UnknownExperiment:
        return [f"{file} has no experiment {stored.name!r}"]
    except RegistryError as error:
        return [f"{file} is not valid with it: {error.problems[0].message} (`flowmbpo validate` lists everything)"]
    return [f"{key}: {then!r} -> {now!r}" for key, (then, now) in diff(stored, today).items()]


def recorded_tags(experiment: Experiment) -> dict[str, str]:
    """Which recorded transitions a run begins with."""
    pretrain = experiment.train.pretrain
    return {RECORDED_TAG: sha256(Path(pretrain.data))} if pretrain else {}


def recorded_changes(experiment: Experiment, then: str) -> list[str]:
    """How they differ from those that a run began with, where both are known."""
    pretrain = experiment.train.pretrain
    if not (pretrain and then and Path(pretrain.data).is_file()) or sha256(Path(pretrain.data)) == then:
        return []
    return [f"train.pretrain.data: {pretrain.data} holds other bytes than when the run began"]


def overrides_of(state: Checkpoint) -> list[str]:
    """What `--set` said when the run began."""
    return [str(item) for item in state.manifest.get("overrides", ())]


def pretrained(state: Checkpoint) -> bool:
    """Whether recorded transitions are not needed any more: the first epoch begins with them."""
    return state.epoch > 0 or state.manifest.get("unfinished", "") == "world_model"


def check_changes(
    files: RunFiles,
    state: Checkpoint,
    experiment: Experiment,
    registry: Path | None,
    *,
    registered: bool = True,
    accept: bool,
) -> list[str]:
    """How spec, code and data differ from when the run began. Raises UserError unless that is to be accepted."""
    changes = code_changes(state.manifest.get("code", {}))
    if registered:
        changes += registry_changes(experiment, overrides_of(state), registry)
    if not pretrained(state):
        changes += recorded_changes(experiment, all_tags(files.journal).get(RECORDED_TAG, ""))
    if changes and not accept:
        raise UserError(
            "the run would not continue as it began:\n  " + "\n  ".join(changes) + "\nA run keeps the spec "
            "it was started with. Go back to what it was, or continue all the same with --accept-changes"
        )
    return changes
