"""Tasks by job, places by request, what runs by copy: everything about a submission that needs no Slurm."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from flowmbpo.cluster import overview, planning, race, send, slurm, snapshot
from flowmbpo.cluster.job import TrainingTask, preflight
from flowmbpo.cluster.request import JobRequest
from flowmbpo.cluster.submission import Submission, TaskState, find_tasks, submissions
from flowmbpo.cluster.task import Attempt
from flowmbpo.errors import UserError
from flowmbpo.runs.files import locked
from flowmbpo.runs.layout import QueueFiles
from flowmbpo.tracking.code_state import state_of
from flowmbpo.tracking.store import resolve_store
from tests.cluster.real_slurm import REGISTRY


def a_draft(
    name: str, seeds: tuple[int, ...] = (0, 1), overrides: tuple[str, ...] = (), **request: object
) -> Submission:
    wanted = JobRequest(**{"gpu": "", "gpus": 0, "cpus": 2, "memory_gb": 4.0, **request})
    return planning.drafts("slurm", seeds, overrides, "", "")(name, wanted)


def test_what_asks_for_the_same_is_packed_together():
    one, other = planning.pack([a_draft("a"), a_draft("big", cpus=8), a_draft("b")], 3)
    assert (one.name, one.names, one.seeds) == ("a+1", ("a", "a", "b", "b"), (0, 1, 0, 1))
    assert (other.name, other.elements) == ("big", 1)
    packed = replace(one, job_id="7")
    assert [task.id for task in packed.tasks] == ["7_0.0", "7_0.1", "7_0.2", "7_1.0"]
    assert [[task.index for task in packed.members(e)] for e in range(packed.elements)] == [[0, 1, 2], [3]]
    script = slurm.batch_script(one)
    assert "#SBATCH --array=0-1%2\n" in script
    assert "#SBATCH --cpus-per-task=6\n" in script
    assert "#SBATCH --mem=12G\n" in script


def test_a_packed_job_is_meant_as_a_whole_or_by_task(make_submission):
    submission = make_submission(seeds=(0, 1, 2), pack=2)
    assert [task.index for task in find_tasks("123")] == [0, 1, 2]
    assert [task.index for task in find_tasks("123_0")] == [0, 1]
    assert [task.index for task in find_tasks("123_1.0")] == [2]
    assert submission.tasks[2].log.name == "123_1_0_log.out"  # what the job said, until the run says something
    submission.files.log("123_1.0").touch()
    assert submission.tasks[2].log.name == "123_1.0_0_log.out"


def test_ctrl_c_cancels_a_check(directory, programs, monkeypatch):
    """It trains in a folder of its own, so data that is named as seen from here has another name there."""
    registry = directory / "experiments.toml"
    registry.write_text(REGISTRY + '[experiments.tiny.train.pretrain]\ndata = "what? is.safetensors"\nupdates = 1\n')
    called = programs(sbatch="echo 'Submitted batch job 7'", squeue="echo '7_0|PENDING|Priority|'", scancel="exit 0")

    def interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(send.time, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        send.check(a_draft("tiny-mlp", overrides=("train.wm_updates=1",)), registry, snapshots=False)
    assert "scancel 7_0" in (called / "calls").read_text()
    (submission,) = submissions()
    assert submission.tasks[0].is_cancelled
    command = Attempt(submission.tasks[0]).command("")
    assert f"train.pretrain.data={directory}/what? is.safetensors" in command
    uri = command[command.index("--tracking-uri") + 1]
    assert resolve_store(uri).sqlite == submission.folder / "mlflow.db"


def test_a_folder_that_submitit_would_read_as_another_is_refused(directory, monkeypatch):
    (directory / "100%a").mkdir()
    monkeypatch.chdir(directory / "100%a")
    with pytest.raises(UserError, match="another name"):
        a_draft("tiny")


def test_large_arrays_are_split():
    parts = list(planning.split(planning.pack([a_draft("a", tuple(range(9)))], 2)[0], 2))
    assert [part.seeds for part in parts] == [(0, 1, 2, 3), (4, 5, 6, 7), (8,)]
    assert [len(part.names) for part in parts] == [4, 4, 1]


def test_every_gpu_in_every_partition():
    request = JobRequest.model_validate_json(json.dumps({"gpu": ["L40S", "H100"], "partition": "a, b"}))
    found = [(one.partition, one.gpu) for one in planning.alternatives(request)]
    assert found == [("a", "L40S"), ("a", "H100"), ("b", "L40S"), ("b", "H100")]
    assert len(planning.alternatives(request.model_copy(update={"gpus": 0}))) == 2  # the type means nothing


def test_the_earliest_comes_first_and_refusals_last(directory, programs):
    programs(
        sbatch="""script=$(cat)
case "$script" in
  *gpu:L40S*) echo 'sbatch: Job 1 to start at 2026-01-01T12:00:00 using 4 processors' >&2 ;;
  *gpu:H100*) echo 'sbatch: Job 2 to start at 2026-01-01T09:30:00 using 4 processors' >&2 ;;
  *) echo 'allocation failure: Requested node configuration is not available' >&2; exit 1 ;;
esac"""
    )
    starts = planning.expected_starts(a_draft("a", gpu="L40S,A100,H100", gpus=1))
    assert [(start.request.gpu, start.at) for start in starts[:2]] == [
        ("H100", "2026-01-01T09:30:00"),
        ("L40S", "2026-01-01T12:00:00"),
    ]
    assert "case-sensitive" in starts[2].refused


def test_the_bill():
    draft = a_draft("a", (0, 1, 2), gpu="L40S", gpus=2, time_limit="4:00:00")
    assert planning.bill(draft, 10 * 3600) == "3 run(s) of 3 time limit(s) of 4:00:00 each, 60.0 GPU hours in all"


def test_one_of_a_race_wins_and_the_others_are_told(make_submission, programs):
    calls = programs(scancel="exit 0") / "calls"
    one = make_submission(stamp="one", job_id="1", race="r")
    other = make_submission(stamp="other", job_id="2", race="r")
    assert race.won(other, 1)
    assert not race.won(one, 1)
    assert race.won(other, 1)  # when it starts again
    assert race.won(one, 0)  # another task, another race
    assert one.tasks[1].files.cancelled.read_text() == "2_1 was ready first"
    assert not other.tasks[1].is_cancelled
    assert "scancel 1_1" in calls.read_text()
    before = calls.read_text()
    race.withdraw(replace(one, job_id=""), 1)  # as it was known before Slurm had taken it: still the same job
    assert calls.read_text() == before
    assert race.won(make_submission(stamp="alone"), 0)


def test_code_is_copied_once_and_removed_with_the_last_job(make_submission, directory: Path):
    jobs = directory / "runs" / "jobs"
    jobs.mkdir(parents=True)
    name = snapshot.take(jobs)
    assert snapshot.take(jobs) == name
    copy = QueueFiles(jobs).code / name
    assert (copy / "flowmbpo" / "cluster" / "job.py").is_file()
    assert state_of(copy).snapshot == name
    assert state_of(copy).commit == state_of(snapshot.PACKAGE.parent).commit
    one, two = (make_submission(stamp=stamp, code=name) for stamp in ("one", "two"))
    assert "not what runs here" in snapshot.missing(one)
    snapshot.prune(jobs, {one.folder})
    assert copy.is_dir()
    with locked(QueueFiles(jobs).code_lock):
        snapshot.prune(jobs, {one.folder, two.folder})
    assert copy.is_dir()  # somebody is submitting
    document = two.files.submission.read_text()
    two.files.submission.write_text(document[:-20])
    snapshot.prune(jobs, {one.folder, two.folder})
    assert copy.is_dir()  # who knows what the damaged one needs
    two.files.submission.write_text(document)
    snapshot.prune(jobs, {one.folder, two.folder})
    assert not copy.exists()


def test_requeues_are_bounded(make_submission, monkeypatch: pytest.MonkeyPatch):
    submission = make_submission(request={"gpus": 0, "max_requeues": 3})
    submission.tasks[0].save(TaskState(starts=4, requeued=True))
    monkeypatch.setattr(preflight, "failure", lambda *_: pytest.fail("it was started once more"))
    with pytest.raises(SystemExit):
        TrainingTask(submission.folder, 0)()
    assert submission.tasks[0].state.exit_code == 1
    assert "requeued 3 times (max_requeues)" in submission.tasks[0].state.message


def test_gpu_hours_asked_for_and_used(make_submission):
    submission: Submission = make_submission(seeds=(0,), request={"gpus": 2, "time_limit": "12:00:00"})
    submission.tasks[0].save(TaskState(starts=2, started_at=5000.0, ended_at=5000.0 + 3600, used_seconds=7200.0))
    assert overview.gpu_hours_by_experiment([submission]) == {"tiny": (48.0, 6.0)}
    assert overview.gpu_hours_by_experiment([make_submission(stamp="cpu")]) == {}


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ("Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)", "sacctmgr"),
        ("QOSMaxJobsPerUserLimit", "sacctmgr"),
        ("AssocGrpGRES", "sacctmgr"),
        ("PartitionTimeLimit", "%l"),
        ("Memory specification can not be satisfied", "--memory"),
        ("Invalid job array specification", "largest array"),
        ("Resources", ""),
        ("JobArrayTaskLimit", ""),
    ],
)
def test_what_slurm_says_gets_a_hint(said: str, word: str):
    assert word in slurm.hint(said)
    assert bool(word) == bool(slurm.hint(said))


def test_the_largest_array_is_slurms_default_where_it_does_not_say(programs):
    programs(scontrol='echo "MaxArraySize            = 77"')
    assert planning.largest_array() == 77
    programs(scontrol="exit 1")
    assert planning.largest_array() == 1001
