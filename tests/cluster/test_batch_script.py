"""The text that sbatch gets, as a whole."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from flowmbpo.cluster import slurm
from flowmbpo.cluster.request import JobRequest, job_request
from flowmbpo.cluster.submission import Submission
from flowmbpo.errors import WorkFailed
from flowmbpo.spec.schema import ResourcesSpec

SUBMISSION = Submission(
    folder=Path("/home/me/ants/runs/jobs/20251118-100000-flow"),
    cluster="slurm",
    name="48M-flow-v2",
    seeds=(0, 1, 2),
    directory=Path("/home/me/ants"),
    tracking_uri="http://tracking:5000",
)
GOLDEN = """\
#!/bin/bash

# Parameters
#SBATCH --account=rl-lab
#SBATCH --array=0-2%3
#SBATCH --chdir=/home/me/ants
#SBATCH --constraint=l40s
#SBATCH --cpus-per-task=4
#SBATCH --exclude='node[07-09]'
#SBATCH --exclusive
#SBATCH --gres=gpu:L40S:1
#SBATCH --job-name=48M-flow-v2
#SBATCH --mem=128G
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/home/me/ants/runs/jobs/20251118-100000-flow/%A_%a_0_log.out
#SBATCH --partition=gpu
#SBATCH --requeue
#SBATCH --signal=USR1@120
#SBATCH --time=12:00:00

# setup
module load cuda/12.4

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /home/me/ants/runs/jobs/20251118-100000-flow/%A_%a_%t_log.out --cpus-per-task=4 \
PYTHON -P -u -m submitit.core._submit /home/me/ants/runs/jobs/20251118-100000-flow
"""


def text(request: JobRequest, **changes: object) -> str:
    return slurm.batch_script(replace(SUBMISSION, request=request, **changes)).replace(sys.executable, "PYTHON")


def test_the_plan_on_an_l40s():
    mine = {"account": "rl-lab", "partition": "gpu", "constraint": "l40s", "setup": ["module load cuda/12.4"]}
    mine["options"] = {"exclude": "node[07-09]", "exclusive": True, "contiguous": False}
    assert text(job_request(ResourcesSpec(), mine, {}, "cluster.toml")) == GOLDEN


def test_nothing_is_asked_that_nobody_wants():
    request = JobRequest(gpu="", gpus=0, cpus=2, memory_gb=1.5, time_limit="1-00:00:00")
    script = text(request, seeds=(7,))
    options = {line.split("=")[0].removeprefix("#SBATCH --") for line in script.splitlines() if "#SBATCH" in line}
    assert options.isdisjoint({"account", "partition", "constraint", "gres", "wckey", "error"})
    assert "#SBATCH --array=0-0%1\n" in script  # one seed is an array too: ids and tags look alike
    assert "#SBATCH --mem=1536M\n" in script
    assert "#SBATCH --time=1-00:00:00\n" in script
    assert "# setup" not in script


def test_any_gpu_and_fewer_tasks_at_once():
    script = text(JobRequest(gpu="", gpus=2, parallel=2))
    assert "#SBATCH --gres=gpu:2\n" in script
    assert "#SBATCH --array=0-2%2\n" in script


def test_the_users_options_win():
    assert "#SBATCH --signal=USR1@600\n" in text(JobRequest(options={"signal": "USR1@600"}))
    assert "#SBATCH --signal=USR1@300\n" in text(JobRequest(checkpoint_seconds=300))


def test_what_slurm_refuses_beside_an_option_of_the_user_is_left_out():
    script = text(JobRequest(gpu="L40S", gpus=1, options={"mem-per-cpu": "4G", "gpus-per-node": 1}))
    assert "#SBATCH --mem-per-cpu=4G\n" in script
    assert "#SBATCH --gpus-per-node=1\n" in script
    assert "--mem=" not in script
    assert "--gres" not in script


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("fatal: Could not establish a configuration source", "--cluster local"),
        ("Batch job submission failed: Requested node configuration is not available", "case-sensitive"),
        ("Batch job submission failed: Invalid account or account/partition combination specified", "cluster.toml"),
    ],
)
def test_slurms_refusal_is_passed_on_with_a_hint(make_submission, programs, said, hint):
    programs(srun="exit 0", sbatch=f'echo "sbatch: error: {said}" >&2; exit 1')
    with pytest.raises(WorkFailed) as caught:
        slurm.submit(make_submission(job_id=""))
    assert said in str(caught.value)
    assert hint in str(caught.value)


def test_a_pickle_waits_for_every_task(make_submission, programs):
    calls = programs(srun="exit 0", sbatch="echo Submitted batch job 77") / "calls"
    done = slurm.submit(make_submission(job_id=""))
    assert done.job_id == "77"
    assert [task.id for task in Submission.load(done.folder).tasks] == ["77_0", "77_1"]
    assert {path.name for path in done.folder.glob("*.pkl")} == {"77_0_submitted.pkl", "77_1_submitted.pkl"}
    assert calls.read_text().startswith("sbatch ")
    assert "--array=0-1%2" in (done.folder / "77_submission.sh").read_text()


def test_the_shell_around_a_submission_does_not_change_its_job(make_submission, programs, monkeypatch):
    """Inside an allocation, and with defaults for `sbatch` that contradict the script."""
    foreign = {"SLURM_JOB_ID": "5", "SLURM_CPU_BIND": "quiet", "SLURM_MEM_PER_CPU": "4000", "PMIX_RANK": "0"}
    foreign |= {"SBATCH_ARRAY_INX": "5-6", "SBATCH_TIMELIMIT": "1", "SBATCH_ACCOUNT": "other", "SRUN_DEBUG": "3"}
    foreign |= {"CUDA_VISIBLE_DEVICES": "1"}
    ours = {"SLURM_CONF": "/etc/slurm.conf", "SLURM_JWT": "token", "SBATCH_PARTITION": "gpu", "MINE": "1"}
    for name, value in {**foreign, **ours}.items():
        monkeypatch.setenv(name, value)
    seen = programs(srun="exit 0", sbatch='env > "$(dirname "$0")/seen"; echo Submitted batch job 77') / "seen"
    slurm.submit(make_submission(job_id="", request={"account": "rl-lab"}))
    names = {line.partition("=")[0] for line in seen.read_text().splitlines()}
    assert names.isdisjoint(foreign)
    assert names >= ours.keys()
