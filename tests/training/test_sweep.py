"""`flowmbpo sweep`: a killed search goes on, trials are no seeds of ours, and the winner is judged on new seeds."""

import json
import signal
import sqlite3
import sys
import time
from pathlib import Path

import psutil
import pytest

from flowmbpo.errors import WorkFailed
from flowmbpo.runs.lock import SILENCE_SECONDS
from flowmbpo.spec.registry import load_registry
from flowmbpo.training import study
from flowmbpo.training.search_space import read_space
from tests.command import run_process

pytest.importorskip("optuna")

SPACE = """
"actor.learning_rate" = { low = 1e-4, high = 1e-2, log = true }
"train.wm_updates" = { choices = [1, 2] }
"actor.units" = { choices = [[8], [4, 4]] }
"""
COMMAND = ["sweep", "small", "--space", "space.toml", "--seeds", 1, "--epochs", 3, "--device", "cpu"]


def test_a_killed_search_goes_on(work):
    (work.folder / "space.toml").write_text(SPACE)
    first = work.start(*COMMAND, "--trials", 6)
    work.until(lambda: "trial 1 (2 of 6)" in first.text, first)
    first.send(signal.SIGKILL)
    first.wait()
    found = json.loads(_json(work.run(*COMMAND, "--trials", 6, "--json", "--dry-run")))
    assert (found["unfinished"], found["interrupted"], found["trials"][1]["state"]) == (1, 1, "interrupted")
    said = work.run(*COMMAND, "--trials", 6, "--dry-run")
    assert "were interrupted; the same command without --dry-run goes on" in " ".join(said.split())
    assert "flowmbpo jobs" not in said
    document = json.loads(_json(work.run(*COMMAND, "--trials", 6, "--json")))
    trials = document["trials"]
    assert [trial["number"] for trial in trials] == [0, 1, 2, 3, 4, 5]
    values = [trial["value"] for trial in trials if trial["value"] is not None]
    assert document["searched"] == max(values)
    assert list(document["winner_runs"]) == ["1"]  # the search had seed 0
    assert document["reported"] == document["winner_runs"]["1"]
    assert document["gap"] == document["searched"] - document["reported"]

    names = [run["name"] for run in json.loads(work.run("runs", "--json"))]
    assert set(names) == {"small-sweep", "small-tuned"}
    assert names.count("small-tuned") == 1
    assert len(list(work.folder.glob("runs/*/artifacts/replay.html"))) == 1  # the winner's
    with sqlite3.connect(work.database) as store:
        parents = store.execute("SELECT DISTINCT value FROM tags WHERE key = 'mlflow.parentRunId'").fetchall()
    assert len(parents) == 1


def test_what_is_doubtful_is_said_before_anything_is_trained(tmp_path):
    (tmp_path / "space.toml").write_text('"actor.learning_rate" = { low = 1e-4, high = 1e-2 }')
    command = ["sweep", "latent-baseline", "--space", "space.toml", "--set", "train.wm_sequence_length=8"]
    assert "drifts off" in run_process(*command, "--dry-run", folder=tmp_path, code=2).err  # of a search not begun


def test_a_trial_that_was_told_to_stop_is_continued(work):
    (work.folder / "space.toml").write_text(SPACE)
    long = [*COMMAND[:-4], "--epochs", 60, "--device", "cpu", "--trials", 1]
    first = work.start(*long)
    work.until(lambda: "epoch 1/" in first.text, first)
    first.send(signal.SIGUSR1)
    assert first.wait() == 128 + signal.SIGUSR1
    assert "the same command continues it" in first.text
    said = work.run(*long)
    assert "resuming small-sweep/seed-0 after epoch" in said
    assert "changed since the run began" not in said  # that no registry knows a trial is no change
    assert sorted(run["name"] for run in json.loads(work.run("runs", "--json"))) == ["small-sweep", "small-tuned"]


def _without_optuna():
    sys.modules["optuna"] = None


def test_the_options_of_jobs_belong_to_jobs(work):
    (work.folder / "space.toml").write_text(SPACE)
    assert "need --submit" in work.run(*COMMAND, "--parallel", 2, code=2)
    assert "--gpus" in work.run(*COMMAND, "--submit", code=2)
    without = work.run(*COMMAND[:-2], "--submit", "--cluster", "local", code=2, before=_without_optuna)
    assert "pip install 'flowmbpo[sweep]'" in without
    assert "nothing has been searched yet" in work.run(*COMMAND, "--dry-run", code=2)
    assert not list(work.folder.glob("optuna*"))


def test_jobs_share_a_search_and_one_that_is_killed_costs_no_trial(work):
    """Two workers on the local queue. One is killed outright in its first trial; the other ends the search alone."""
    (work.folder / "space.toml").write_text(SPACE)
    submit = [*COMMAND[:-2], "--trials", 5, "--submit", "--cluster", "local", "--parallel", 2, "--no-snapshot"]
    script = work.run(*submit, "--dry-run")
    assert script.count("--trials 5 --seeds 1 --epochs 3") == 2
    assert not (work.folder / "runs").exists()
    (job,) = json.loads(_json(work.run(*submit, "--json"), "[\n"))
    assert (job["name"], job["tasks"]) == ("small-sweep", ["local-1_0", "local-1_1"])
    folder = Path(job["folder"])

    def until(condition):
        deadline = time.monotonic() + 400
        while not condition():
            logs = "".join(path.read_text() for path in folder.glob("*.out"))
            assert time.monotonic() < deadline, logs
            time.sleep(0.1)

    until(lambda: sum(" started" in log.read_text() for log in folder.glob("*.out")) == 2)
    task = psutil.Process(json.loads((folder / "task-0.json").read_text())["pid"])
    for process in [*task.children(recursive=True), task]:
        process.kill()
    until(lambda: json.loads((folder / "task-1.json").read_text())["exit_code"] is not None)
    assert json.loads((folder / "task-1.json").read_text())["exit_code"] == 0

    document = json.loads(_json(work.run(*COMMAND, "--trials", 5, "--json")))
    assert "trial " not in work.commands[-1].text.partition("{")[0]  # it only had to look
    assert [trial["number"] for trial in document["trials"]] == [0, 1, 2, 3, 4]
    assert document["reported"] == document["winner_runs"]["1"]
    rows = {row["job"]: row for row in json.loads(_json(work.run("jobs", "--json"), "[\n"))}
    assert [rows[task]["state"] for task in job["tasks"]] == ["KILLED", "COMPLETED"]
    assert "the same `flowmbpo sweep` again" in rows["local-1_0"]["note"]
    with sqlite3.connect(work.database) as store:
        parents = store.execute("SELECT DISTINCT value FROM tags WHERE key = 'mlflow.parentRunId'").fetchall()
    assert len(parents) == 1


def test_a_search_in_a_folder_of_any_name(tmp_path):
    folder = tmp_path / "50%20 off? a#b {c}"
    folder.mkdir()
    for _ in range(2):
        study.open_study(folder, "s")
    assert list(tmp_path.iterdir()) == [folder]
    journal = folder / study.JOURNAL
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code":5,"wor')  # what a full disk leaves
    study.open_study(folder, "s").ask()
    assert journal.read_bytes().startswith(whole + b'{"op_code":')
    assert len(study.open_study(folder, "s").trials) == 1
    journal.write_bytes(b"no journal\n" * 100)
    with pytest.raises(WorkFailed, match=r"optuna\.journal cannot be used"):
        study.open_study(folder, "s")


def claimed(folder, count=3):
    """The trials that a worker of its own gets, before it ends."""
    searched = study.open_study(folder, "s")
    with study.Worker(folder) as worker:
        return [trial for _ in range(count + 1) if (trial := worker.claim(searched, count))]


def test_processes_share_the_trials_and_never_make_more(tmp_path):
    searched = study.open_study(tmp_path, "s")
    with study.Worker(tmp_path) as first, study.Worker(tmp_path) as second:
        mine, other = first.claim(searched, 3), second.claim(searched, 3)
        values = [trial.suggest_float("x", 0.0, 1.0) for trial in (mine, other)]
        assert values[0] != values[1]
        searched.tell(mine, 1.0)
        assert [first.claim(searched, 3).number, second.claim(searched, 3)] == [2, None]
    trials = claimed(tmp_path)  # both have ended without a word
    assert [trial.number for trial in trials] == [1, 2]
    assert trials[0].params == {"x": values[1]}
    assert not list(tmp_path.glob("*.workers"))


def test_a_trial_that_kills_its_process_again_and_again_is_given_up(tmp_path):
    for _ in range(study.KILLS):
        assert [trial.number for trial in claimed(tmp_path, 1)] == [0]
    assert claimed(tmp_path, 1) == []
    (trial,) = study.open_study(tmp_path, "s").trials
    assert (trial.state.name, trial.user_attrs[study.WHY]) == ("PRUNED", "its process was killed 3 times")


def test_a_trial_on_another_machine_is_left_alone_until_that_is_silent(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("flowmbpo.runs.lock.hostname", lambda: "node07")
    claimed(tmp_path, 1)
    monkeypatch.setattr("flowmbpo.runs.lock.hostname", lambda: "node08")
    assert claimed(tmp_path, 1) == []
    seen = time.time
    monkeypatch.setattr(time, "time", lambda: seen() + 2 * SILENCE_SECONDS)
    assert [trial.number for trial in claimed(tmp_path, 1)] == [0]


def test_an_earlier_start_of_a_job_is_known_to_be_gone(tmp_path, monkeypatch):
    monkeypatch.setenv("FLOWMBPO_JOB_TASK", "folder/0")
    monkeypatch.setattr("flowmbpo.runs.lock.hostname", lambda: "node07")
    claimed(tmp_path, 1)
    monkeypatch.setattr("flowmbpo.runs.lock.hostname", lambda: "node08")
    assert [trial.number for trial in claimed(tmp_path, 1)] == [0]


def _json(text, begin='{\n  "study"'):
    """Standard output and standard error are one file here; the document is the last thing in it."""
    return text[text.index(begin) :]


def test_the_shipped_space_is_valid():
    repository = Path(__file__).resolve().parents[2]
    registry = load_registry(repository / "experiments.toml")
    assert len(read_space(repository / "docs" / "quickstart-space.toml", registry, "quickstart", ())) == 6


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ("", "nothing to search"),
        ("[", "not valid TOML"),
        ('"train.horizn" = { choices = [16] }', "horizon"),
        ('"train.horizon" = { choices = [4] }', "horizon"),
        ('"train.num_envs" = { low = 4, high = 2 }', "low < high"),
        ('"train.num_envs" = { from = 4 }', "choices"),
        ('"train.num_envs" = 4', "choices"),
        ('"train.num_envs" = 4\n"train.horizn" = { choices = [16] }', "horizn"),
        ('"train.num_envs" = { choices = [] }', "no values"),
        ("train.num_envs = { choices = [4] }", "quotation marks"),
        ('"train.num_envs" = { low = 2, high = 4, step = 0 }', "step above 0"),
        ('"train.num_envs" = { low = 2, high = 4, step = 0.5 }', "whole"),
        ('"train.num_envs" = { low = 2, high = 4, log = "yes" }', "log = true"),
    ],
)
def test_wrong_spaces(work, space, said):
    (work.folder / "space.toml").write_text(space)
    assert said in work.run(*COMMAND, "--trials", 1, code=2)


def test_whole_ends_of_a_real_number_are_no_whole_numbers(tmp_path):
    space = tmp_path / "space.toml"
    space.write_text('"actor.log_std_init" = { low = -1, high = 1 }\n"train.wm_updates" = { low = 1, high = 3 }')
    repository = Path(__file__).resolve().parents[2]
    found = read_space(space, load_registry(repository / "experiments.toml"), "pointmass", ())
    assert [type(form["low"]) for form in found.values()] == [float, int]


def test_a_missing_space(work):
    said = work.run(*COMMAND, "--trials", 1, code=2)
    assert "space.toml cannot be read: No such file or directory" in " ".join(said.split())
    assert "Errno" not in said
