"""What Slurm says about jobs: `squeue` for what waits, runs or ended a moment ago, `sacct` for older ones where the
cluster keeps accounts. Also requeue and cancel. Not here: what the jobs train (`overview`).
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable

from flowmbpo.cluster.environment import for_questions
from flowmbpo.cluster.states import QueueState
from flowmbpo.errors import WorkFailed


def is_available() -> bool:
    return shutil.which("sbatch") is not None


def check() -> str:
    """Slurm's version, if its commands are here and its controller answers. Raises WorkFailed."""
    if missing := [name for name in ("sbatch", "squeue", "scontrol", "scancel") if shutil.which(name) is None]:
        raise WorkFailed(f"{', '.join(missing)} not found: load Slurm's module, or ask who runs the cluster")
    _ask("squeue", "--me", "--noheader")
    return _ask("sbatch", "--version").strip()


def configuration() -> dict[str, str]:
    """What the cluster's administrators have set. Raises WorkFailed when Slurm does not answer."""
    lines = (line.partition("=") for line in _ask("scontrol", "show", "config").splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}


def states(job_ids: Iterable[str]) -> dict[str, QueueState]:
    """What is known of every task (`JOB_INDEX`) of these arrays; tasks that Slurm has forgotten are missing.

    Raises WorkFailed when Slurm does not answer.
    """
    wanted = {str(job) for job in job_ids}
    if not wanted:
        return {}
    text = _ask("squeue", "--me", "--array", "--states=all", "--noheader", "--format=%i|%T|%r|%N")
    found = {task: state for task, state in _parse(text) if task.split("_")[0] in wanted}
    forgotten = wanted - {task.split("_")[0] for task in found}
    if forgotten and shutil.which("sacct"):
        columns = ("sacct", "-X", "--array", "--noheader", "--parsable2", "--format=JobID,State,Reason,NodeList")
        try:
            old = dict(_parse(_ask(*columns, "-j", ",".join(sorted(forgotten)))))
        except WorkFailed:  # no accounting on this cluster: the task's own report has to do
            old = {}
        found = {**old, **found}
    return found


def _parse(text: str) -> Iterable[tuple[str, QueueState]]:
    for line in text.splitlines():
        fields = line.split("|")
        if len(fields) != 4:
            continue
        task, state, reason, node = (field.strip() for field in fields)
        # sacct writes "CANCELLED by 1000"; both write "None" for no reason
        yield task, QueueState(state.split(" ")[0].rstrip("+"), "" if reason in ("None", "none") else reason, node)


def state_of(raw_job_id: str) -> str:
    """State of the one job with this id (for an array task its own number); empty when unknown."""
    try:
        return _ask("squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={raw_job_id}").strip()
    except WorkFailed:
        return ""


def requeue(raw_job_id: str) -> str:
    """Put a job back into the queue; returns why not, empty for success. The caller, if in the job, is killed soon."""
    try:
        _ask("scontrol", "requeue", raw_job_id)
    except WorkFailed as error:
        return str(error)
    return ""


def cancel(task_ids: Iterable[str]) -> None:
    """Cancel jobs or tasks: SIGTERM, and SIGKILL after the cluster's KillWait. Raises WorkFailed."""
    _ask("scancel", *task_ids)


def _ask(*command: str) -> str:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=60,
            check=False,
            env=for_questions(),
        )
    except FileNotFoundError:
        raise WorkFailed(f"{command[0]} is not installed: this machine has no Slurm") from None
    except subprocess.TimeoutExpired:
        raise WorkFailed(f"{command[0]} did not answer within a minute; is the Slurm controller reachable?") from None
    if done.returncode:
        raise WorkFailed(f"{command[0]}: {(done.stderr or done.stdout).strip()}")
    return done.stdout
