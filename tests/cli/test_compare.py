"""`flowmbpo compare` and `flowmbpo report` as a user types them, in processes of their own."""

import os
import shutil
from pathlib import Path

import pytest

from tests.command import run_process
from tests.reports.synthetic import SyntheticStore, make_database, write_registry


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A working directory with a registry and a store of two experiments."""
    folder = tmp_path_factory.mktemp("compare")
    write_registry(folder)
    make_database(folder)
    store = SyntheticStore(folder)
    for seed in range(2):
        store.run("5M-baseline", seed, [100.0, 1300.0, 650.0], evaluations={1: 1200.0 + seed})
        store.run("48M-flow-v2", seed, [100.0, 5300.0, 6500.0], evaluations={2: 6400.0 + seed})
    return folder


def refused(folder: Path, *arguments: str, code: int = 2) -> str:
    """The one message of a command that cannot be done."""
    done = run_process(*arguments, folder=folder, code=code)
    assert done.out == ""
    return done.err


def test_json_is_one_document_and_nothing_else(folder):
    done = run_process("compare", "5M-baseline", "flow-v2", "--json", folder=folder)
    document = done.json()
    assert [row["name"] for row in document["rows"]] == ["5M-baseline", "48M-flow-v2"]
    first = document["rows"][0]
    wanted = {"seeds", "peak_reward", "final_reward", "last100_reward", "eval_reward", "stability", "env_steps"}
    assert wanted | {"wall_seconds", "params", "expected"} <= set(first)
    assert (first["peak_reward"], first["stability"], first["eval_reward"]) == (1300.0, 0.5, 1200.5)
    assert document["verdicts"][0]["better"] == "48M-flow-v2"


def test_the_table_has_no_colour_on_a_pipe(folder):
    done = run_process("compare", "5M-baseline", "48M-flow-v2", folder=folder)
    assert "\x1b[" not in done.out
    assert "0.50 unstable" in done.out
    assert "48M-flow-v2 was above 5M-baseline in 1.00 of the pairs" in done.out


def test_csv_markdown_and_a_plot(folder):
    assert run_process("compare", "5M-baseline", "--csv", folder=folder).out.startswith("name,")
    done = run_process("compare", "5M-baseline", "--markdown", "--plot", "curves.png", folder=folder)
    assert done.out.startswith("| name |")
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_names_from_the_store_are_not_markup(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    SyntheticStoreAgain(tmp_path / "copy").run("[/bold][red]x", 0, [1.0])
    done = run_process("compare", "[/bold][red]x", folder=tmp_path / "copy")
    assert "[/bold][red]x" in done.out


class SyntheticStoreAgain(SyntheticStore):
    """A store that has the experiment already."""

    def __init__(self, folder: Path) -> None:
        from mlflow import MlflowClient

        self.client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
        self.experiment = self.client.get_experiment_by_name("flowmbpo").experiment_id


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compare"], "name experiments or runs"),
        (["compare", "5M-basline"], "5M-baseline"),
        (["compare", "idle"], "no finished runs"),
        (["compare", "5M-baseline", "--json", "--csv"], "--json and --csv"),
        (["compare", "5M-baseline", "--csv", "c.csv"], "--csv > c.csv"),
        (["compare", "5M-baseline", "--plot", "no/curves.png"], "cannot be written"),
        (["compare", "5M-baseline", "--plot", "curves.txt"], ".png"),
        (["compare", "5M-baseline", "--tracking-uri", "sqlite:///none.db"], "does not exist"),
        (["compare", "5M-baseline", "--tracking-uri", "ftp://x"], "not supported"),
        (["compare", "5M-baseline", "--registry", "none.toml"], "no such file"),
        (["report", "--out", "no/report.html"], "cannot be written"),
        (["report", "--out", "report.txt"], ".html"),
        (["report", "nonsense", "--out", "report.html"], "nonsense"),
    ],
)
def test_a_users_mistake_is_one_message(folder, arguments, words):
    assert words in " ".join(refused(folder, *arguments).split())


@pytest.mark.parametrize("command", [["compare", "5M-baseline"], ["report", "--out", "away.html"]])
def test_a_server_that_is_away_is_failed_work(folder, command):
    assert "127.0.0.1:9" in refused(folder, *command, "--tracking-uri", "http://127.0.0.1:9", code=1)
    assert not (folder / "away.html").exists()


def test_the_report_is_written_and_kept_in_mlflow(folder):
    run_process("report", "--out", "report.html", folder=folder)
    assert (folder / "report.html").read_text().startswith("<!DOCTYPE html>")
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("flowmbpo-reports").experiment_id])
    assert run.info.status == "FINISHED"
    assert [artifact.path for artifact in client.list_artifacts(run.info.run_id)] == ["report.html"]
    names = {row["name"] for row in run_process("runs", "--json", folder=folder).json()}
    assert names == {"5M-baseline", "48M-flow-v2"}


def test_a_store_that_can_only_be_read_is_no_obstacle(folder, tmp_path):
    if os.geteuid() == 0:
        pytest.skip("permissions do not bind the superuser")
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "mlflow.db").chmod(0o444)
    done = run_process("report", "--out", str(tmp_path / "report.html"), folder=tmp_path / "copy")
    assert "not kept in MLflow" in done.err
