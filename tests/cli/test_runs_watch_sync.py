"""`flowmbpo runs`, `watch` and `sync` on a store with a known content."""

import json
import shutil
import sqlite3
import sys
from dataclasses import replace

import pytest

from flowmbpo.cli import curve, watch
from flowmbpo.cli.app import main
from flowmbpo.errors import WorkFailed
from flowmbpo.tracking.run_tracker import RunDescription, start_run
from flowmbpo.tracking.store import resolve_store

SPEC = {"train": {"horizon": 16, "num_envs": 128, "max_epochs": 50}}
FIELDS = {"run_id", "name", "seed", "status", "epoch", "max_epochs", "env_steps", "episode_reward", "eta_seconds"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with two finished runs."""
    folder = tmp_path_factory.mktemp("work")
    for seed in (0, 1):
        about = RunDescription("quickstart", seed, SPEC, "h", "cpu")
        with start_run(resolve_store(None, folder), about, folder / "runs") as tracker:
            for epoch in range(1, 51):
                tracker.log({"train/epoch": float(epoch), "train/episode_reward": 20.0 * epoch}, step=2048 * epoch)
    return folder


@pytest.fixture
def flowmbpo(monkeypatch, capsys):
    """Run a command line: (exit code, stdout, stderr)."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["flowmbpo", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_runs_as_json(folder, flowmbpo, monkeypatch):
    monkeypatch.chdir(folder)
    code, out, _ = flowmbpo("runs", "--json")
    assert code == 0
    documents = json.loads(out)
    assert [document["seed"] for document in documents] == [1, 0]
    for document in documents:
        assert set(document) >= FIELDS
        assert document["name"] == "quickstart"
        assert (document["status"], document["epoch"], document["max_epochs"]) == ("FINISHED", 50, 50)
        assert (document["env_steps"], document["episode_reward"]) == (50 * 2048, 1000.0)
        assert document["eta_seconds"] is None


def test_runs_as_a_table_and_filtered(folder, flowmbpo):
    uri = f"sqlite:///{folder}/mlflow.db"
    code, out, _ = flowmbpo("runs", "--tracking-uri", uri)
    assert code == 0
    assert out.count("quickstart") == 2
    assert "102,400" in out
    code, out, _ = flowmbpo("runs", "quickstart/seed-1", "--status", "finished", "--json", "--tracking-uri", uri)
    assert [document["seed"] for document in json.loads(out)] == [1]
    code, out, _ = flowmbpo("runs", "--status", "running", "--json", "--tracking-uri", uri)
    assert json.loads(out) == []


def test_nothing_yet_is_no_error(tmp_path, flowmbpo, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = flowmbpo("runs", "--json")
    assert (code, json.loads(out)) == (0, [])
    code, out, err = flowmbpo("runs")
    assert (code, out) == (0, "")
    assert "No runs yet" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("runs", "--tracking-uri", "sqlite:///nowhere.db"), 2, "does not exist yet"),
        (("runs", "--tracking-uri", "sqlite:///."), 2, "is a folder, not a database file"),
        (("runs", "--tracking-uri", "mlruns"), 2, "is not supported"),
        (("runs", "--tracking-uri", "http://127.0.0.1:9"), 1, "connection refused"),
        (("runs", "--status", "busy"), 2, "use RUNNING, FINISHED"),
        (("watch", "quickstart", "--tracking-uri", "sqlite:///nowhere.db"), 2, "does not exist yet"),
        (("sync", "no-such-folder"), 2, "is no folder"),
        (("ui", "--tracking-uri", "sqlite:///nowhere.db"), 2, "does not exist yet"),
    ],
)
def test_wrong_input_is_one_clear_message(tmp_path, flowmbpo, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    found, out, err = flowmbpo(*arguments)
    assert (found, out) == (code, "")
    assert message in err
    assert "Traceback" not in err


def test_an_unknown_run_is_named_with_what_there_is(folder, flowmbpo):
    code, _, err = flowmbpo("watch", "quickstrat", "--tracking-uri", f"sqlite:///{folder}/mlflow.db")
    assert code == 2
    assert "did you mean 'quickstart'?" in err


def test_watch_on_a_pipe_prints_the_points_and_ends_with_the_run(folder, flowmbpo):
    code, out, _ = flowmbpo("watch", "quickstart", "--tracking-uri", f"sqlite:///{folder}/mlflow.db")
    lines = out.splitlines()
    assert code == 0
    assert len(lines) == 51
    assert lines[0] == "2,048 env steps  epoch 1  R 20"
    assert lines[49] == "102,400 env steps  epoch 50  R 1,000"
    assert "quickstart seed 1" in lines[50]
    assert "FINISHED" in lines[50]


@pytest.mark.parametrize("terminal", [False, True])
def test_watching_outlives_a_server_that_is_away(folder, flowmbpo, monkeypatch, terminal):
    newest = [watch.select_run(watch.current_runs(watch.open_reader(f"sqlite:///{folder}/mlflow.db")), "quickstart")]
    away = WorkFailed("http://server:5000: connection refused")
    answers = iter([[replace(newest[0], status="RUNNING")], away, away, newest])

    def current_runs(reader):
        answer = next(answers)
        if isinstance(answer, WorkFailed):
            raise answer
        return answer

    monkeypatch.setattr(watch, "current_runs", current_runs)
    monkeypatch.setattr(watch.tables, "on_terminal", lambda _: terminal)
    code, out, err = flowmbpo(
        "watch", "quickstart", "--interval", 0.2, "--tracking-uri", f"sqlite:///{folder}/mlflow.db"
    )
    assert code == 0
    assert "FINISHED" in out
    assert err.count("connection refused; asked again every 0.2 s") == 1


def test_sync_of_a_run_that_never_saw_its_server(folder, flowmbpo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    about = RunDescription("offline", 0, SPEC, "h", "cpu")
    with start_run(resolve_store("http://127.0.0.1:9"), about, tmp_path / "runs") as tracker:
        tracker.log({"train/epoch": 1.0}, step=7)
    code, _, err = flowmbpo("runs")
    assert code == 0
    assert "`flowmbpo sync` delivers them" in err
    code, out, err = flowmbpo("sync", "--json")
    assert code == 1
    assert "connection refused" in err
    assert json.loads(out)[0]["problem"]
    uri = f"sqlite:///{folder}/mlflow.db"
    code, out, _ = flowmbpo("sync", "--json", "--tracking-uri", uri)
    assert code == 0
    assert [(d["run_id"], d["status"], d["problem"]) for d in json.loads(out)] == [(tracker.run_id, "FINISHED", "")]
    _, out, _ = flowmbpo("runs", "offline", "--json", "--tracking-uri", uri)
    (document,) = json.loads(out)
    assert (document["run_id"], document["epoch"], document["status"]) == (tracker.run_id, 1, "FINISHED")
    code, out, err = flowmbpo("sync", "--tracking-uri", uri)
    assert (code, out) == (0, "")
    assert "already" in err


def test_a_curve_in_braille():
    # Two cells of 2 x 4 dots: the diagonal takes the dots (0, 3), (1, 2) of the first and (0, 1), (1, 0) of the second.
    first, second = chr(0x2800 + 0x40 + 0x20), chr(0x2800 + 0x02 + 0x08)
    assert curve.draw([(0, 0), (3, 1)], width=5, height=1) == [f"1 │{first}{second}", "  └ 3 env steps"]


def test_a_curve_of_nothing_or_of_one_value():
    assert curve.draw([(0, float("nan"))], 40, 5) == ["(no points yet)"]
    flat = curve.draw([(0, 5.0), (10, 5.0)], 40, 5)
    assert len(flat) == 6
    assert "⠤" in flat[-2] or "⣀" in flat[-2]


def test_runs_and_compare_agree_about_a_dead_run_in_a_store_that_cannot_be_written(
    folder, flowmbpo, tmp_path, monkeypatch
):
    from flowmbpo.errors import UserError
    from flowmbpo.tracking.mlflow_writer import MlflowWriter

    shutil.copy(folder / "mlflow.db", tmp_path / "mlflow.db")
    with sqlite3.connect(tmp_path / "mlflow.db") as db:
        (run,) = db.execute("SELECT run_uuid FROM runs ORDER BY start_time LIMIT 1").fetchone()
        db.execute("UPDATE runs SET status = 'RUNNING' WHERE run_uuid = ?", (run,))
        db.execute("UPDATE tags SET value = '/gone' WHERE run_uuid = ? AND key = 'flowmbpo.directory'", (run,))
        db.execute("UPDATE tags SET value = '999999999' WHERE run_uuid = ? AND key = 'flowmbpo.pid'", (run,))

    def readonly(self):
        raise UserError("the store is not writable")

    monkeypatch.setattr(MlflowWriter, "_connected", readonly)
    monkeypatch.chdir(tmp_path)
    _, out, _ = flowmbpo("runs", "--json")
    assert {row["status"] for row in json.loads(out) if row["run_id"] == run} == {"KILLED"}
    _, out, _ = flowmbpo("compare", "quickstart", "--json")
    assert [(row["run_id"], row["status"]) for row in json.loads(out)["failed"]] == [(run, "KILLED")]
