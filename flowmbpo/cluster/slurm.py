"""Job arrays on Slurm, through submitit: one array per submission, one task per seed.

submitit writes the batch script, keeps the callable and names the logs. What a task does when its time is up is ours
(`task`): submitit would pickle the job's state, and ours is in the run's checkpoints. Asking the queue: `slurm_queue`.
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowmbpo.cluster.environment import misleading
from flowmbpo.cluster.request import JobRequest
from flowmbpo.cluster.submission import Submission
from flowmbpo.cluster.task import TrainingTask
from flowmbpo.errors import WorkFailed

if TYPE_CHECKING:
    from submitit import SlurmExecutor


def batch_script(submission: Submission, request: JobRequest) -> str:
    """The text that `sbatch` gets."""
    executor = _executor(submission, request)
    return executor._make_submission_file_text(executor._submitit_command_str, "")


def submit(submission: Submission, request: JobRequest) -> Submission:
    """Send the array. Raises WorkFailed with Slurm's own words when it refuses."""
    from submitit.core.utils import DelayedSubmission, FailedJobError, FailedSubmissionError, JobPaths

    executor = _executor(submission, request)
    submission.save()  # a job may start before sbatch returns
    try:
        # Not `executor.submit_array`: it makes a plain job of one task, and ours shall be named and tagged alike.
        array = executor._submit_command(executor._submitit_command_str)
    except (FailedJobError, FailedSubmissionError, OSError) as error:
        raise WorkFailed(_refusal(str(error), submission, request)) from None
    for index in range(len(submission.seeds)):
        task = DelayedSubmission(TrainingTask(submission.folder, index))
        task.set_timeout(_minutes(request.time_limit), 0)
        pickle = JobPaths(submission.folder, f"{array.job_id}_{index}").submitted_pickle
        unfinished = pickle.with_suffix(".new")
        task.dump(unfinished)
        unfinished.rename(pickle)  # the job waits for this name
    return submission.submitted(str(array.job_id))


def _executor(submission: Submission, request: JobRequest) -> SlurmExecutor:
    from submitit import SlurmExecutor

    class Executor(SlurmExecutor):
        @classmethod
        def affinity(cls) -> int:
            return 2  # a script can be printed where there is no Slurm

        def _make_submission_command(self, submission_file_path: Path) -> list[str]:
            unset = [f"--unset={name}" for name in misleading(decided)]
            return ["env", *unset, *super()._make_submission_command(submission_file_path)]

    options = parameters(submission, request)
    decided = [key for key, value in {**options, **options["additional_parameters"]}.items() if value]
    # -P: the job's working directory is full of the user's files, which are no modules of ours.
    executor = Executor(submission.folder, python=f"{shlex.quote(sys.executable)} -P")
    executor.update_parameters(**options)
    executor.parameters["map_count"] = len(submission.seeds)
    return executor


def parameters(submission: Submission, request: JobRequest) -> dict[str, Any]:
    """submitit's parameters of a request; an empty value leaves the decision to the cluster."""
    further = {key.lstrip("-"): value for key, value in request.options.items() if value is not False}
    megabytes = round(request.memory_gb * 1024)
    found: dict[str, Any] = {
        "job_name": submission.name,
        "account": request.account or None,
        "partition": request.partition or None,
        "constraint": request.constraint or None,
        "nodes": 1,
        "ntasks_per_node": 1,
        "cpus_per_task": request.cpus,
        "mem": f"{megabytes // 1024}G" if megabytes % 1024 == 0 else f"{megabytes}M",
        "gres": _gres(request),
        "array_parallelism": request.parallel or len(submission.seeds),
        "stderr_to_stdout": True,
        "wckey": None,
        "setup": list(request.setup) or None,
        # since Slurm 22.05 a step no longer takes this over from its job
        "srun_args": [f"--cpus-per-task={request.cpus}"],
    }
    found["additional_parameters"] = {
        "time": request.time_limit,
        "signal": f"USR1@{request.checkpoint_seconds}",
        "requeue": True,
        "chdir": str(submission.directory),
        **further,
    }
    for ours, theirs in _EXCLUDE.items():
        if further.keys() & theirs:
            found.pop(ours)
    return found


# Slurm refuses ours beside any of these.
_EXCLUDE = {
    "mem": {"mem-per-cpu", "mem-per-gpu"},
    "gres": {"gpus", "gpus-per-node", "gpus-per-task", "gpus-per-socket"},
}


def _gres(request: JobRequest) -> str | None:
    if not request.gpus:
        return None
    return f"gpu:{request.gpu}:{request.gpus}" if request.gpu else f"gpu:{request.gpus}"


def _minutes(limit: str) -> int:
    match = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", limit)
    assert match, limit  # the schema has checked it
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60) + minutes + (seconds > 0)


def _refusal(message: str, submission: Submission, request: JobRequest) -> str:
    said = [line.strip() for line in message.splitlines() if "error" in line.lower()] or [message.strip()]
    lines = [f"Slurm refused {submission.name}: {'; '.join(said)}"]
    if "node configuration" in message:
        lines.append(
            f"asked for {_gres(request) or 'no GPU'}, {request.cpus} CPUs, {request.memory_gb:g} GB, "
            f"constraint {request.constraint or 'none'}; names of GPU types are case-sensitive: `sinfo -o '%P %G %f'`"
        )
    elif "account" in message.lower() or "partition" in message.lower():
        lines.append(
            "set account and partition with --account and --partition, or in the [cluster] table of cluster.toml"
        )
    return "\n".join(lines)
