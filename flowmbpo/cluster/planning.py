"""Submissions before they are sent: their tasks by job, where they may run and when, what they cost."""

from __future__ import annotations

import itertools
import math
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flowmbpo.cluster import slurm, slurm_queue
from flowmbpo.cluster.request import JobRequest
from flowmbpo.cluster.submission import Submission
from flowmbpo.cluster.task import birth, resumable_epoch
from flowmbpo.errors import UserError, WorkFailed
from flowmbpo.runs.layout import JOBS, RunFiles


def drafts(
    cluster: str,
    seeds: Sequence[int],
    overrides: Sequence[str],
    resume: str,
    tracking_uri: str,
    accept_changes: bool = False,
) -> Callable[[str, JobRequest], Submission]:
    """What makes the draft of an experiment, to be run in the working directory.

    Raises UserError where submitit would take a part of the directory's name for its own placeholder.
    """
    if cluster == "slurm" and (placeholder := re.search("%[jtAa]", str(Path.cwd()))):
        raise UserError(
            f"jobs of Slurm cannot run in {Path.cwd()}: {placeholder[0]} in a path stands for a job's number; submit "
            "from a folder of another name"
        )
    return lambda name, request: Submission(
        folder=(JOBS / f"dry-run-{name}").absolute(),
        cluster="slurm" if cluster == "slurm" else "local",
        name=name,
        seeds=tuple(seeds),
        directory=Path.cwd(),
        tracking_uri=tracking_uri,
        overrides=tuple(overrides),
        resume=resume,
        accept_changes=accept_changes,
        request=request,
    )


def pack(drafts: Sequence[Submission], size: int) -> list[Submission]:
    """`size` tasks to a job, of different experiments too where these ask for the same."""
    packed = []
    for _, group in itertools.groupby(sorted(drafts, key=kind), key=kind):
        first, *more = alike = list(group)
        tasks = [(draft.name, seed) for draft in alike for seed in draft.seeds]
        names, seeds = zip(*tasks, strict=True)
        name = f"{first.name}+{len(more)}" if more else first.name
        packed.append(replace(first, name=name, names=names, seeds=seeds, pack=size))
    return packed


def split(draft: Submission, largest: int) -> Iterator[Submission]:
    """Parts whose arrays have at most `largest` elements."""
    step = largest * draft.pack
    for begin in range(0, len(draft.seeds), step):
        part = slice(begin, begin + step)
        yield replace(draft, seeds=draft.seeds[part], names=draft.names[part])


def kind(draft: Submission) -> str:
    """The same for drafts that ask for the same."""
    return draft.request.model_dump_json()


# --- where it may run ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Start:
    """When Slurm would start a job with this request (local time as Slurm writes it), or why it would not."""

    request: JobRequest
    at: str
    refused: str = ""

    def __str__(self) -> str:
        return f"{self.at or 'refused':<19}  {place(self.request)}" + (f": {self.refused}" if self.refused else "")


def place(request: JobRequest) -> str:
    gpus = f"{request.gpus} {request.gpu or 'GPU'}" if request.gpus else "CPUs"
    return f"{gpus}, {request.partition or 'default'} partition"


def alternatives(request: JobRequest) -> list[JobRequest]:
    """One request for each GPU type and partition that may be."""
    types = request.gpu.split(",") if request.gpus else [request.gpu]
    return [
        request.model_copy(update={"gpu": gpu.strip(), "partition": partition.strip()})
        for partition in request.partition.split(",")
        for gpu in types
    ]


def expected_starts(draft: Submission) -> list[Start]:
    """Each alternative's start, the earliest first. Raises WorkFailed when Slurm refuses all."""
    starts = []
    for request in alternatives(draft.request):
        try:
            starts.append(Start(request, slurm.expected_start(replace(draft, request=request))))
        except WorkFailed as error:
            starts.append(Start(request, "", str(error)))
    if all(start.refused for start in starts):
        raise WorkFailed("\n".join(dict.fromkeys(start.refused for start in starts)))
    return sorted(starts, key=lambda start: start.at or "~")  # refused ones last


def racing(drafts: Iterable[Submission]) -> list[Submission]:
    """The same, of which one shall train."""
    race = secrets.token_hex(4)
    return [replace(draft, race=race) for draft in drafts]


def largest_array() -> int:
    """Elements that one array may have; Slurm's default where it does not say."""
    try:
        return int(slurm_queue.configuration()["MaxArraySize"])
    except (WorkFailed, KeyError, ValueError):
        return 1001


def bill(draft: Submission, seconds: float) -> str:
    """Time limits (so requeues, less one) that a run of so many seconds takes, and GPU hours of all runs."""
    request, runs = draft.request, len(draft.seeds)
    limits = math.ceil(seconds / slurm.seconds(request.time_limit))
    gpus = f", {seconds / 3600 * request.gpus * runs:,.1f} GPU hours in all" if request.gpus else ""
    return f"{runs} run(s) of {limits} time limit(s) of {request.time_limit} each{gpus}"


# --- runs that are continued -----------------------------------------------------------------------------------------


def run_to_continue(run_id: str) -> tuple[str, int]:
    """Name and seed of a run of this directory."""
    folder = RunFiles.of(run_id).root
    tags, _ = birth(folder)
    if not tags:
        raise UserError(
            f"{folder} holds no run: continue a run in the directory where it was started (`flowmbpo runs`)"
        )
    if resumable_epoch(folder) is None:
        raise UserError(f"run {run_id} has no state to continue from; submit {tags['flowmbpo.name']} again instead")
    return tags["flowmbpo.name"], int(tags["flowmbpo.seed"])
