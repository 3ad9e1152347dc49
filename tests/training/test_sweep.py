"""`flowmbpo sweep`: a killed search goes on, trials are no seeds of ours, and the winner is judged on new seeds."""

import json
import signal
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import REGISTRY

from flowmbpo.errors import UserError, WorkFailed
from flowmbpo.runs.files import locked
from flowmbpo.spec.registry import load_registry
from flowmbpo.tracking.store import sqlite_store
from flowmbpo.training import sweep
from flowmbpo.training.session import RunOptions

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
    work.until(lambda: "trial 2 of 6" in first.text, first)
    first.send(signal.SIGKILL)
    first.wait()
    work.run(*COMMAND, "--trials", 6, "--json")
    document = json.loads(_json(work))
    trials = [trial for trial in document["trials"] if trial["state"] != "fail"]
    assert len(trials) == 6
    assert len(document["trials"]) <= 7  # only what was killed was begun again
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


def test_a_search_in_a_folder_of_any_name_and_only_one_at_a_time(tmp_path):
    folder = tmp_path / "50%20 off? a#b {c}"
    folder.mkdir()
    (folder / "experiments.toml").write_text(REGISTRY)
    options = RunOptions(device="cpu", tracking_uri=None, epochs=3, time_limit=None)
    about = sweep.Sweep(load_registry(folder / "experiments.toml"), "small", {}, 1, options, lambda: None)
    store = sqlite_store(folder / "mlflow.db")
    for _ in range(2):
        sweep._study(about, store)
    assert (folder / sweep.DATABASE).is_file()
    assert list(tmp_path.iterdir()) == [folder]

    with (  # the first one's trials are not those of a dead process
        locked(folder / f"{sweep.DATABASE}.{about.study_name}.lock"),
        pytest.raises(UserError, match="another process"),
    ):
        sweep.search(about, store, 1, print)
    (folder / sweep.DATABASE).write_bytes(b"no database" * 100)
    with pytest.raises(WorkFailed, match=r"optuna\.db cannot be used"):
        sweep.search(about, store, 1, print)


def _json(work):
    """Standard output and standard error are one file here; the document is the last thing in it."""
    text = work.commands[-1].text
    return text[text.index('{\n  "study"') :]


def test_the_shipped_space_is_valid():
    repository = Path(__file__).resolve().parents[2]
    registry = load_registry(repository / "experiments.toml")
    assert len(sweep.read_space(repository / "docs" / "quickstart-space.toml", registry, "quickstart", ())) == 6


def test_a_continued_search_draws_other_values(tmp_path):
    search, store = SimpleNamespace(study_name="s"), sqlite_store(tmp_path / "mlflow.db")
    drawn = set()
    for _ in range(3):
        study = sweep._study(search, store)
        trial = study.ask()
        drawn.add(trial.suggest_float("x", 0.0, 1.0))
        study.tell(trial, 1.0)
    assert len(drawn) == 3


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
        ('"train.num_envs" = { choices = [] }', "no values"),
    ],
)
def test_wrong_spaces(work, space, said):
    (work.folder / "space.toml").write_text(space)
    assert said in work.run(*COMMAND, "--trials", 1, code=2)


def test_a_missing_space(work):
    said = work.run(*COMMAND, "--trials", 1, code=2)
    assert "space.toml cannot be read: No such file or directory" in " ".join(said.split())
    assert "Errno" not in said
