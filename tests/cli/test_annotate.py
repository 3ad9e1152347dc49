"""Notes and tags on runs: kept in MLflow, shown where runs are shown, and what is set aside is not counted."""

import shutil

import pytest

from flowmbpo.tracking.run_tracker import RunDescription, start_run
from flowmbpo.tracking.store import resolve_store
from tests.cli.point import REGISTRY


@pytest.fixture
def ids(tmp_path, empty_database, monkeypatch):
    """Two finished runs of `quickstart` in the default store."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    found = []
    for seed in (0, 1):
        about = RunDescription("quickstart", seed, {"name": "quickstart"}, "abc", "cpu")
        with start_run(resolve_store(None), about, tmp_path / "runs") as tracker:
            tracker.log({"train/episode_reward": 100.0 * (seed + 1)}, 2048)
        found.append(tracker.run_id)
    return found


def test_a_note_is_mlflows_description(flowmbpo, ids):
    from mlflow import MlflowClient

    assert flowmbpo("note", ids[0], "odd curve").code == 0
    assert flowmbpo("note", ids[0][:8], "looked at it").code == 0
    note = "odd curve\nlooked at it"
    assert MlflowClient(tracking_uri="sqlite:///mlflow.db").get_run(ids[0]).data.tags["mlflow.note.content"] == note
    assert {run["run_id"]: run["note"] for run in flowmbpo("runs", "--json").json()} == {ids[0]: note, ids[1]: None}
    assert "odd curve" in flowmbpo("runs").out
    assert "odd curve" in flowmbpo("compare", "quickstart").out


def test_an_alias_means_its_experiment_where_runs_are_selected(flowmbpo, ids, tmp_path):
    registry = tmp_path / "experiments.toml"
    valid = REGISTRY.replace("experiments.point", "experiments.quickstart")
    registry.write_text(valid.replace("description", 'aliases = ["quick"]\ndescription'))
    commands = (
        ["runs", "quick", "--json"],
        ["watch", "quick/seed-1"],
        ["note", "quick", "text"],
        ["export", "quick", "--csv", "points.csv"],
        ["compare", "quick/seed-0", "--json"],
    )
    for command in commands:
        assert flowmbpo(*command).code == 0, command
    for command in (["eval", "quick"], ["render", "quick", "--out", "r.html"], ["record", "quick", "--out", "r"]):
        assert "checkpoint" in flowmbpo(*command).err, command
    registry.write_text("[")  # names are then taken as they are written
    assert flowmbpo("runs", "quickstart").code == 0
    assert "no run matches 'quick'" in flowmbpo("runs", "quick").err


def test_a_run_that_is_set_aside_is_not_counted(flowmbpo, ids):
    def compared():
        document = flowmbpo("compare", "quickstart", "--json").json()
        return document["rows"][0]["peak_reward"], document["set_aside"]

    assert compared() == (150.0, [])
    assert flowmbpo("tag", ids[1], "usable=no", "lab=b", "--why", "wrong driver").code == 0
    peak, (aside,) = compared()
    assert (peak, aside["run_id"], aside["reason"]) == (100.0, ids[1], "wrong driver")
    assert "wrong driver" in flowmbpo("compare", "quickstart").out
    assert "usable=no" in flowmbpo("runs").out
    assert flowmbpo("compare", ids[1], "--json").json()["rows"][0]["peak_reward"] == 200.0  # asked for by its id
    assert flowmbpo("tag", ids[0], "usable=no", "--why", "wrong driver").code == 0
    message = flowmbpo("compare", "quickstart").err.replace("\n", " ")
    assert "no finished runs (quickstart: 2 set aside)" in message
    assert "`flowmbpo tag RUN usable=yes` takes one that was set aside back in" in message
    assert flowmbpo("tag", ids[0], "usable=yes").code == 0
    assert flowmbpo("tag", ids[1], "usable=yes").code == 0
    assert compared() == (150.0, [])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tag", "quickstart/seed-0", "usable=maybe"], "allowed are yes and no"),
        (["tag", "quickstart/seed-0", "usable=no"], "--why"),
        (["tag", "quickstart/seed-0", "lab=b", "--why", "x"], "--why"),
        (["tag", "quickstart/seed-0", "nothing"], "KEY=VALUE"),
        (["tag", "quickstart/seed-0", "flowmbpo.seed=7"], "cannot be a tag"),
        (["note", "quickstart/seed-0", " "], "empty"),
        (["note", "quickstar", "text"], "did you mean"),
        (["note", "quickstart/seed-0", "x" * 6000], "allowed are 5000"),
    ],
)
def test_wrong_input(flowmbpo, ids, arguments, said):
    outcome = flowmbpo(*arguments)
    assert outcome.code == 2, outcome.text
    assert said in outcome.err.replace("\n", " ")
