"""Job arrays on Slurm, through submitit: one array per submission, one task per seed.

submitit writes the batch script, keeps the callable and names the logs. What a task does when its time is up is ours
(`task`): submitit would pickle the job's state, and ours is in the run's checkpoints. Asking the queue: `slurm_queue`.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowmbpo.cluster.environment import misleading
from flowmbpo.cluster.job import TrainingTask
from flowmbpo.cluster.request import JobRequest
from flowmbpo.cluster.submission import Submission
from flowmbpo.errors import WorkFailed

if TYPE_CHECKING:
    from submitit import SlurmExecutor


def batch_script(submission: Submission) -> str:
    """The text that `sbatch` gets."""
    executor = _executor(submission)
    return executor._make_submission_file_text(executor._submitit_command_str, "")


def submit(submission: Submission) -> Submission:
    """Send the array. Raises WorkFailed with Slurm's own words when it refuses."""
    from submitit.core.utils import DelayedSubmission, FailedJobError, FailedSubmissionError, JobPaths

    executor = _executor(submission)
    submission.save()  # a job may start before sbatch returns
    try:
        # Not `executor.submit_array`: it makes a plain job of one task, and ours shall be named and tagged alike.
        array = executor._submit_command(executor._submitit_command_str)
    except (FailedJobError, FailedSubmissionError, OSError) as error:
        raise WorkFailed(_refusal(str(error), submission)) from None
    for index in range(submission.elements):
        task = DelayedSubmission(TrainingTask(submission.folder, index))
        task.set_timeout(-(-seconds(submission.request.time_limit) // 60), 0)
        pickle = JobPaths(submission.folder, f"{array.job_id}_{index}").submitted_pickle
        unfinished = pickle.with_suffix(".new")
        task.dump(unfinished)
        unfinished.rename(pickle)  # the job waits for this name
    return submission.submitted(str(array.job_id))


def expected_start(submission: Submission) -> str:
    """When Slurm would start it, as in 2025-11-18T10:00:00. Raises WorkFailed in Slurm's words when it refuses."""
    command = [*sbatch(parameters(submission)), "--test-only"]
    script = batch_script(submission)
    done = subprocess.run(command, input=script, capture_output=True, encoding="utf-8", errors="replace", check=False)
    found = re.search(r"to start at (\S+)", done.stdout + done.stderr)
    if done.returncode or not found:
        raise WorkFailed(_refusal(done.stderr or done.stdout, submission))
    return found.group(1)


def sbatch(options: dict[str, Any]) -> list[str]:
    """The program, with what the submitting shell must not tell it. `options` are those of `parameters`."""
    decided = [key for key, value in {**options, **options["additional_parameters"]}.items() if value]
    return ["env", *(f"--unset={name}" for name in misleading(decided)), "sbatch"]


def _executor(submission: Submission) -> SlurmExecutor:
    from submitit import SlurmExecutor

    class Executor(SlurmExecutor):
        @classmethod
        def affinity(cls) -> int:
            return 2  # a script can be printed where there is no Slurm

        def _make_submission_command(self, submission_file_path: Path) -> list[str]:
            return [*sbatch(options), *super()._make_submission_command(submission_file_path)[1:]]

    options = parameters(submission)
    # -P: the job's working directory is full of the user's files, which are no modules of ours.
    executor = Executor(submission.folder, python=f"{shlex.quote(sys.executable)} -P")
    executor.update_parameters(**options)
    executor.parameters["map_count"] = submission.elements
    return executor


def parameters(submission: Submission) -> dict[str, Any]:
    """submitit's parameters; an empty value leaves the decision to the cluster."""
    request = submission.request
    further = {key.lstrip("-"): value for key, value in request.options.items() if value is not False}
    at_once = min(submission.pack, len(submission.seeds))
    megabytes = round(request.memory_gb * 1024) * at_once
    cpus = request.cpus * at_once
    found: dict[str, Any] = {
        "job_name": submission.name,
        "account": request.account or None,
        "partition": request.partition or None,
        "constraint": request.constraint or None,
        "nodes": 1,
        "ntasks_per_node": 1,
        "cpus_per_task": cpus,
        "mem": f"{megabytes // 1024}G" if megabytes % 1024 == 0 else f"{megabytes}M",
        "gres": _gres(request),
        "array_parallelism": request.parallel or submission.elements,
        "stderr_to_stdout": True,
        "wckey": None,
        "setup": [*request.setup, *_python_path(submission)] or None,
        # since Slurm 22.05 a step no longer takes this over from its job
        "srun_args": [f"--cpus-per-task={cpus}"],
    }
    found["additional_parameters"] = {
        "time": request.time_limit,
        "signal": f"USR1@{request.checkpoint_seconds}",
        "requeue": True,
        "chdir": str(submission.directory),
        **further,
    }
    if "%" in (folder := str(submission.folder)):  # in the name of a log Slurm replaces what follows it
        logs = folder.replace("%", "%%")
        found["additional_parameters"]["output"] = f"{logs}/%A_%a_0_log.out"
        found["srun_args"].append(f"--output={logs}/%A_%a_%t_log.out")
    for ours, theirs in _EXCLUDE.items():
        if further.keys() & theirs:
            found.pop(ours)
    return found


# Slurm refuses ours beside any of these.
_EXCLUDE = {
    "mem": {"mem-per-cpu", "mem-per-gpu"},
    "gres": {"gpus", "gpus-per-node", "gpus-per-task", "gpus-per-socket"},
}


def _python_path(submission: Submission) -> list[str]:
    """Shell lines after which Python imports the submitted code, not what is installed."""
    if submission.code_folder is None:
        return []
    return [f"export PYTHONPATH={shlex.quote(str(submission.code_folder))}${{PYTHONPATH:+:$PYTHONPATH}}"]


def _gres(request: JobRequest) -> str | None:
    if not request.gpus:
        return None
    return f"gpu:{request.gpu}:{request.gpus}" if request.gpu else f"gpu:{request.gpus}"


def seconds(limit: str) -> int:
    """A time limit, H:MM:SS or D-HH:MM:SS."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", limit)
    assert match, limit  # the schema has checked it
    days, hours, minutes, rest = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


# What Slurm says when it refuses a job or lets it wait, and what may be done about it.
_HINTS = {
    "unable to contact|configuration source": "Slurm is installed here but does not answer: submit on a login node, or "
    "use this machine's own queue with --cluster local",
    "account|invalid partition": "set account and partition with --account and --partition, or in the [cluster] table "
    "of cluster.toml",
    "time ?limit": "`sinfo -o '%P %l'` shows each partition's longest; a job goes on after its limit, so a shorter "
    "--time will do",
    "memory spec": "`sinfo -o '%P %m'` shows the nodes' memory in MB; ask for less with --memory",
    "array spec": "`scontrol show config | grep -i max` shows the largest array and number of jobs; submit fewer",
    "qos|assoc": "a limit of your account or QOS (`sacctmgr show assoc user=$USER`, `sacctmgr show qos`): submit fewer "
    "seeds, ask for less, or name another with --option qos=NAME",
}


def _refusal(message: str, submission: Submission) -> str:
    request = submission.request
    said = [line.strip() for line in message.splitlines() if "error" in line.lower()] or [message.strip()]
    lines = [f"Slurm refused {submission.name}: {'; '.join(said)}"]
    if "node configuration" in message:
        lines.append(
            f"asked for {_gres(request) or 'no GPU'}, {request.cpus} CPUs, {request.memory_gb:g} GB, "
            f"constraint {request.constraint or 'none'}; names of GPU types are case-sensitive: `sinfo -o '%P %G %f'`"
        )
    return "\n".join(filter(None, [*lines, hint(" ".join(said))]))


def hint(said: str) -> str:
    """What may be done about it; empty where nothing is known."""
    return next((hint for words, hint in reversed(_HINTS.items()) if re.search(words, said, re.IGNORECASE)), "")
