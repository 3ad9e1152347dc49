"""`flowmbpo submit`, `jobs`, `logs` and `cancel` as a user calls them, with stand-ins for Slurm's programs."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from flowmbpo.cluster.submission import Submission, TaskState, submissions
from flowmbpo.runs.journal import Create, Journal
from flowmbpo.runs.layout import RunFiles
from tests.command import Outcome, run_process

REGISTRY = """
[experiments.base]
abstract = true
env = { kind = "pointmass", episode_length = 20 }
world_model = { kind = "mlp", units = [16], encoder_units = [16], latent_dim = 16 }
train = { horizon = 16, max_epochs = 20, num_envs = 4, wm_batch_size = 8, replay_capacity = 2000 }
resources = { gpu = "L40S", gpus = 1, cpus = 4, memory_gb = 128, time_limit = "12:00:00" }

[experiments.first]
extends = "base"
aliases = ["one"]

[experiments.second]
extends = "base"
resources = { gpu = "", gpus = 0, memory_gb = 8, time_limit = "1:00:00" }
"""


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Call flowmbpo in an empty directory with a registry of two; `cli.slurm(sbatch=..., ...)` installs stand-ins."""
    (tmp_path / "experiments.toml").write_text(REGISTRY)
    monkeypatch.chdir(tmp_path)
    programs = tmp_path / "bin"
    programs.mkdir()
    surroundings = {
        "PATH": f"{programs}:{Path(sys.executable).parent}:/bin",
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "NO_COLOR": "1",
    }

    def call(*arguments: str, code: int = 0, **more: str) -> Outcome:
        return run_process(*arguments, code=code, variables=surroundings | more)

    def slurm(**scripts: str) -> Path:
        for name, body in {"srun": "exit 0", "sacct": "exit 1", **scripts}.items():
            (programs / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/calls\n{body}\n')
            (programs / name).chmod(0o755)
        return tmp_path / "calls"

    call.slurm = slurm  # type: ignore[attr-defined]
    return call


def options(script: str) -> dict[str, str]:
    lines = [line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")]
    return dict(line.partition("=")[::2] for line in lines)


# --- dry run ---------------------------------------------------------------------------------------------------------


def test_a_dry_run_prints_one_script_per_experiment_and_touches_nothing(cli, tmp_path):
    before = set(tmp_path.iterdir())
    (tmp_path / "cluster.toml").write_text('[cluster]\naccount = "rl-lab"\noptions = { exclude = "n1" }\n')
    done = cli("submit", "one", "second", "--seeds", "0,1,2", "--dry-run", "--option", "exclusive", "--json")
    first, second = done.json()
    assert (first["name"], first["seeds"], first["cluster"]) == ("first", [0, 1, 2], "slurm")
    found = options(first["script"])
    assert found["account"] == "rl-lab"
    assert found["array"] == "0-2%3"
    assert (found["gres"], found["mem"], found["time"]) == ("gpu:L40S:1", "128G", "12:00:00")
    assert (found["exclude"], found["exclusive"], found["signal"]) == ("n1", "", "USR1@120")
    assert "gres" not in options(second["script"])
    assert options(second["script"])["time"] == "1:00:00"
    assert set(tmp_path.iterdir()) == before | {tmp_path / "cluster.toml"}


def test_all_means_what_can_be_run(cli):
    scripts = cli("submit", "--all", "--dry-run").out
    assert [line for line in scripts.splitlines() if "job-name" in line] == [
        "#SBATCH --job-name=first",
        "#SBATCH --job-name=second",
    ]


def test_options_win_over_the_file_and_the_registry(cli, tmp_path):
    (tmp_path / "mine.toml").write_text('[cluster]\npartition = "slow"\ncpus = 2\n')
    arguments = ["--partition", "fast", "--memory", "1.5", "--time", "90m", "--gpu", "a100", "--gpus", "2"]
    done = cli("submit", "first", "--dry-run", "--cluster-file", "mine.toml", *arguments)
    found = options(done.out)
    assert (found["partition"], found["cpus-per-task"], found["mem"]) == ("fast", "2", "1536M")
    assert (found["time"], found["gres"]) == ("1:30:00", "gpu:a100:2")


def test_a_local_dry_run_prints_commands(cli):
    lines = cli("submit", "second", "--seeds", "3,4", "--cluster", "local", "--dry-run").out.splitlines()
    assert [line.split(" --registry")[0] for line in lines[1:]] == [
        "flowmbpo run second --seed 3",
        "flowmbpo run second --seed 4",
    ]


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["frist"], "first"),
        (["base"], "abstract"),
        ([], "at least one experiment"),
        (["first", "--all"], "not both"),
        (["first", "--seeds", "0,x"], "not a seed"),
        (["first", "--seeds", "0,0"], "twice"),
        (["first", "--set", "train.horizon=4"], "horizon"),
        (["first", "--time", "soon"], "time limit"),
        (["first", "--memory", "0"], "memory_gb"),
        (["first", "--cluster", "pbs"], "slurm, local"),
        (["first", "--cluster-file", "nowhere.toml"], "nowhere.toml does not exist"),
        (["first", "--resume", "abc"], "leave out"),
        (["--resume", "abc"], "holds no run"),
        (["--resume", "../etc"], "is not a run id"),
        (["first", "--tracking-uri", "ftp://x"], "not supported"),
        (["first", "--set", 'train.pretrain={data="nope.safetensors",updates=1}'], "there is no file nope.safetensors"),
    ],
)
def test_mistakes_are_refused_before_anything_is_submitted(cli, tmp_path, arguments, message):
    calls = cli.slurm(sbatch="echo Submitted batch job 1")
    assert message in " ".join(cli("submit", *arguments, code=2).err.split())
    assert not calls.exists()
    assert not (tmp_path / "runs").exists()


def test_a_wrong_registry_submits_nothing(cli, tmp_path):
    calls = cli.slurm(sbatch="echo Submitted batch job 1")
    (tmp_path / "experiments.toml").write_text(REGISTRY.replace("num_envs = 4", "num_envs = 0"))
    assert "num_envs" in cli("submit", "second", code=2).err
    assert not calls.exists()


def test_slurm_is_asked_for_where_there_is_none(cli, tmp_path):
    done = cli("submit", "first", "--cluster", "slurm", code=2, PATH=str(tmp_path / "bin"))
    assert "--cluster local" in done.err


def test_what_slurm_refuses_leaves_nothing_behind(cli, tmp_path):
    cli.slurm(sbatch='echo "sbatch: error: Batch job submission failed: Invalid account" >&2; exit 1')
    assert "Invalid account" in cli("submit", "first", code=1).err
    assert {path.name for path in (tmp_path / "runs" / "jobs").iterdir()} <= {"code.lock"}


def test_a_later_refusal_still_reports_what_was_taken(cli, tmp_path):
    cli.slurm(sbatch='grep -q job-name=first "$1" && echo Submitted batch job 8 || { echo "error: no" >&2; exit 1; }')
    done = cli("submit", "first", "second", code=1)
    assert "8" in done.out
    assert [submission.job_id for submission in submissions()] == ["8"]


# --- submitting and after --------------------------------------------------------------------------------------------


def test_a_submission_keeps_the_registry_of_that_moment(cli, tmp_path):
    cli.slurm(sbatch="echo Submitted batch job 8")
    done = cli("submit", "one", "--seeds", "0,1", "--set", "train.gamma=0.9", "--json")
    (job,) = done.json()
    assert (job["job"], job["tasks"], job["name"], job["seeds"]) == ("8", ["8_0", "8_1"], "first", [0, 1])
    (submission,) = submissions()
    assert submission.files.registry.read_text() == REGISTRY
    assert submission.overrides == ("train.gamma=0.9",)
    assert submission.tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"


def test_a_run_is_continued_by_the_beginning_of_its_id(cli, tmp_path):
    for run_id in ("3f0cab12", "3f0cff34"):
        files = RunFiles(tmp_path / "runs" / run_id)
        (files.resume / "epoch-000005").mkdir(parents=True)
        opened = Journal(files.journal)
        tags = {"flowmbpo.name": "first", "flowmbpo.seed": "7"}
        opened.append(Create(run_id, "first/seed-7", 0, tags, ""))
        opened.close()
    command = cli("submit", "--resume", "3f0ca", "--cluster", "local", "--dry-run").out
    assert "flowmbpo run --resume 3f0cab12 --registry" in command
    assert "beginning of 2 run ids" in cli("submit", "--resume", "3f0c", "--dry-run", code=2).err


def test_jobs_show_queue_and_errors_without_a_store(cli):
    cli.slurm(sbatch="echo Submitted batch job 8", squeue="echo '8_0|FAILED|NonZeroExitCode|n7'")
    assert "no jobs" in cli("jobs").err.lower()
    assert cli("jobs", "--json").json() == []
    cli("submit", "first")
    (submission,) = submissions()
    submission.tasks[0].save(TaskState(starts=1, exit_code=1, node="n7"))
    submission.tasks[0].log.write_text("started\nfailed: diverged by epoch 3\n")
    (row,) = cli("jobs", "--json").json()
    assert (row["job"], row["state"], row["node"], row["run_status"]) == ("8_0", "FAILED", "n7", None)
    assert row["note"] == "failed: diverged by epoch 3"
    table = cli("jobs").out
    assert "8_0 first/seed-0: failed: diverged by epoch 3" in table


def test_jobs_are_watched_until_all_have_ended(cli, tmp_path):
    """The table appears again when something has changed, with the GPU hours below it."""
    looks = f"""[ -e {tmp_path}/looked ] && echo '8_0|COMPLETED|None|n7' || echo '8_0|PENDING|QOSMaxJobsPerUserLimit|'
touch {tmp_path}/looked"""
    cli.slurm(sbatch="echo Submitted batch job 8", squeue=looks)
    cli("submit", "first")
    (submission,) = submissions()
    submission.tasks[0].save(TaskState(starts=1, started_at=0.0, ended_at=7200.0, exit_code=0))
    shown = cli("jobs", "--watch", "--interval", "1").out
    assert [word for word in shown.split() if word in ("PENDING", "COMPLETED")] == ["PENDING", "COMPLETED"]
    assert "sacctmgr" in shown  # what the limit is, in the first table only
    assert shown.count("GPU hours") == 2
    assert shown.splitlines()[-2].split()[1::2] == ["first", "12", "2"]
    assert "leave one of them out" in cli("jobs", "--watch", "--json", code=2).err


def test_watching_jobs_outlives_a_silent_slurm(cli, tmp_path):
    """Two looks in the middle are not answered: said once, and asked again."""
    looks = f"""echo >> {tmp_path}/looks
case $(wc -l < {tmp_path}/looks) in
1) echo '8_0|PENDING|Priority|' ;;
2|3) echo 'Unable to contact slurm controller' >&2; exit 1 ;;
*) echo '8_0|COMPLETED|None|n7' ;;
esac"""
    cli.slurm(sbatch="echo Submitted batch job 8", squeue=looks)
    cli("submit", "first")
    watched = cli("jobs", "--watch", "--interval", "1")
    assert [word for word in watched.out.split() if word in ("PENDING", "COMPLETED")] == ["PENDING", "COMPLETED"]
    assert watched.err.count("Unable to contact slurm controller") == 1
    assert "asked again every 1 s" in watched.err


def test_jobs_say_when_slurm_is_silent(cli):
    cli.slurm(sbatch="echo Submitted batch job 8", squeue='echo "Unable to contact slurm controller" >&2; exit 1')
    cli("submit", "first")
    assert "Unable to contact" in cli("jobs", code=1).err


def a_finished_job(cli, seeds: str) -> Submission:
    cli.slurm(sbatch="echo Submitted batch job 8", squeue="exit 0", scancel="exit 0")
    cli("submit", "first", "--seeds", seeds)
    (submission,) = submissions()
    for task in submission.tasks:
        task.save(TaskState(starts=1, exit_code=0))
        task.log.write_text(f"words of {task.index}\n")
    return submission


def test_logs_of_a_job_and_of_a_task(cli):
    a_finished_job(cli, "5,6")
    assert cli("logs", "8").out == "==> 8_0 first/seed-5 <==\nwords of 0\n==> 8_1 first/seed-6 <==\nwords of 1\n"
    assert cli("logs", "8_1").out == "words of 1\n"
    assert cli("logs", "8_1", "--follow").out == "words of 1\n"  # it has ended: there is nothing to wait for
    assert "8_0, 8_1" in cli("logs", "8", "-f", code=2).err
    assert "the latest are 8" in cli("logs", "9", code=2).err


def test_packed_tasks_are_called_by_their_experiments(cli):
    submission = a_finished_job(cli, "5,6")
    replace(submission, name="first+1", names=("first", "second"), pack=2).save()
    (submission.folder / "8_0_0_log.out").rename(submission.folder / "8_0.0_0_log.out")
    (submission.folder / "8_1_0_log.out").rename(submission.folder / "8_0.1_0_log.out")
    assert "==> 8_0.1 second/seed-6 <==" in cli("logs", "8").out
    cli.slurm(squeue="echo '8_0|PENDING|Priority|'")
    (submission.folder / "task-1.json").unlink()
    assert "8_0.1 second/seed-6 cancelled" in cli("cancel", "8_0.1").err


def test_cancel_asks_slurm_once_per_living_task(cli, tmp_path):
    submission = a_finished_job(cli, "5,6,7")
    calls = cli.slurm(squeue="echo '8_0|COMPLETED|None|n'; echo '8_1|RUNNING|None|n'; echo '8_2|PENDING|Priority|'")
    said = cli("cancel", "8", "8_1").err
    assert "8_0 has ended already (COMPLETED)" in said
    assert [line for line in calls.read_text().splitlines() if "scancel" in line] == ["scancel 8_1", "scancel 8_2"]
    assert [task.is_cancelled for task in submission.tasks] == [False, True, True]
    cli("cancel", "77", code=2)
