"""`flowmbpo import`: the formats of other programs, the right x-axis, no duplicates, never mixed with our seeds."""

import json
import shutil

import pytest

from flowmbpo.tracking.reader import open_reader
from flowmbpo.tracking.store import resolve_store

R = "train/episode_reward"


@pytest.fixture
def here(tmp_path, empty_database, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return tmp_path


def curve(metric=R):
    """(environment steps, seconds since the start, value) of the only run."""
    reader = open_reader(resolve_store(None))
    (run,) = reader.runs()
    assert run.status == "FINISHED"
    frame = reader.curves([run], [metric])
    return [(step, time - run.start_time, value) for step, time, value in frame[["step", "time", "value"]].to_numpy()]


def test_csv_with_a_map(flowmbpo, here):
    (here / "old.csv").write_text("it,frames,wall,ret,note\n0,0,0,1.5,a\n1,2048,10,3,b\n2,4096,20,nan,c\n")
    command = [
        "import",
        "old.csv",
        "--as",
        "old",
        "--map",
        f"{R}=ret",
        "--map",
        "env_steps=frames",
        "--map",
        "seconds=wall",
    ]
    for new in (True, False):  # the second time nothing happens
        document = flowmbpo(*command, "--json").json()
        assert (document["new"], document["env_steps"], document["metrics"]) == (new, 4096, [R])
    assert [point[:2] for point in curve()] == [(0, 0), (2048, 10), (4096, 20)]
    assert curve()[1][2] == 3
    (row,) = flowmbpo("compare", "old", "--json").json()["rows"]
    assert (row["peak_reward"], row["origin"], row["wall_seconds"]) == (3, "csv: old.csv", 20)


def test_references_are_not_judged_against_runs(flowmbpo, here):
    for seed in (0, 1):
        for name, reward in (("old", 1), ("older", 5)):
            (here / "a.csv").write_text(f"step,{R}\n0,{seed}\n1,{reward + seed}\n")
            assert flowmbpo("import", "a.csv", "--as", name, "--seed", seed, "--steps-per", 64).code == 0
    document = flowmbpo("compare", "old", "older", "--json").json()
    assert [row["seeds"] for row in document["rows"]] == [2, 2]
    assert [row["env_steps"] for row in document["rows"]] == [64, 64]
    assert not document["verdicts"]
    assert any("references" in note for note in document["notes"])


def test_tensorboard(flowmbpo, here):
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter("events") as writer:
        for step in range(3):
            writer.add_scalar("rollout/ep_rew_mean", 10.0 * step, step, walltime=1000.0 + step)
            writer.add_scalar("time/frames", 512 * step, step, walltime=1000.0 + step)
    assert flowmbpo("import", "events", "--as", "tb", "--map", f"{R}=rollout/ep_rew_mean").code == 0
    assert curve() == [(0, 0, 0), (1, 1, 10), (2, 2, 20)]
    command = ["import", "events", "--as", "tb", "--map", f"{R}=rollout/ep_rew_mean", "--map", "env_steps=time/frames"]
    assert "other contents" in flowmbpo(*command).err.replace("\n", " ")
    assert flowmbpo(*command, "--seed", 1, "--json").json()["env_steps"] == 1024


def test_wandb_offline_run(flowmbpo, here, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with wandb.init(project="old", mode="offline", dir=here) as run:
        for step in range(3):
            run.log({"reward": 2.5 * step, "text": "x" * 40_000})  # longer than a block of the file
    wandb.teardown()  # its process has now written all of it
    (folder,) = (here / "wandb").glob("offline-run-*")
    command = ["import", folder, "--as", "wandb", "--map", f"{R}=reward", "--steps-per", 100]
    outcome = flowmbpo(*command)
    assert outcome.code == 0, outcome.text
    assert [(step, value) for step, _, value in curve()] == [(0, 0), (100, 2.5), (200, 5)]


def test_wandb_exported_history(flowmbpo, here):
    rows = [{"_step": step, "_timestamp": 50.0 + step, "reward": float(step)} for step in range(3)]
    (here / "history.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert flowmbpo("import", "history.jsonl", "--as", "w", "--map", f"{R}=reward").code == 0
    assert curve() == [(0, 0, 0), (1, 1, 1), (2, 2, 2)]


def test_mlflow_store_of_another_program(flowmbpo, here, empty_database):
    from mlflow import MlflowClient

    shutil.copy(empty_database, here / "other.db")
    client = MlflowClient(tracking_uri="sqlite:///other.db")
    experiment = client.create_experiment("theirs")
    ids = [client.create_run(experiment).info.run_id for _ in range(2)]
    for step in range(3):
        client.log_metric(ids[1], "return", 3.0 * step, timestamp=1000 * step + 5000, step=step)
    command = ["import", "sqlite:///other.db", "--as", "theirs", "--map", f"{R}=return"]
    assert "name one with --run" in flowmbpo(*command).err
    assert flowmbpo("import", "sqlite:///missing.db", "--as", "x").code == 2
    assert not (here / "missing.db").exists()
    assert flowmbpo(*command, "--run", ids[1][:8]).code == 0
    assert curve() == [(0, 0, 0), (1, 1, 3), (2, 2, 6)]


def test_an_old_mlruns_folder(flowmbpo, here):
    for run, factor in (("a" * 32, 1), ("b" * 32, 3)):
        folder = here / "mlruns" / "0" / run
        (folder / "metrics" / "train").mkdir(parents=True)
        (folder / "tags").mkdir()
        (folder / "meta.yaml").write_text(f"run_id: {run}\n")
        (folder / "tags" / "mlflow.runName").write_text(f"walk-{factor}")
        lines = [f"{5000 + 1000 * step} {factor * step}.0 {step}" for step in range(3)]
        (folder / "metrics" / "train" / "return").write_text("\n".join(lines) + "\n")
    command = ["import", "mlruns", "--as", "theirs", "--map", f"{R}=train/return"]
    assert "name one with --run: aaaaaaaa (walk-1), bbbbbbbb (walk-3)" in flowmbpo(*command).err.replace("\n", " ")
    for source, new in (("mlruns", True), (f"file://{here}/mlruns", False)):
        command[1] = source
        assert flowmbpo(*command, "--run", "walk-3", "--json").json()["new"] == new
    assert curve() == [(0, 0, 0), (1, 1, 3), (2, 2, 6)]
    (here / "mlruns" / "0" / ("b" * 32) / "metrics" / "train" / "return").write_text("1000 x\n")
    assert "no intact MLflow store" in flowmbpo(*command, "--run", "walk-3").err.replace("\n", " ")


WRONG = {
    "missing": (["nothing.csv"], None, "does not exist"),
    "empty": (["a.csv"], "", "it is empty"),
    "ragged": (["a.csv"], "a,b\n1\n", "line 2"),
    "binary": (["a.csv"], "\x00\xff", "cannot be read|no numbers|which of"),
    "no numbers": (["a.csv"], "a,b\nx,y\n", "no numbers"),
    "no reward": (["a.csv"], "a,b\n1,2\n", "There are a, b"),
    "wrong column": (["a.csv", "--map", f"{R}=aa"], "a,b\n1,2\n", "did you mean 'a'"),
    "wrong metric": (["a.csv", "--map", "train/episode_rewards=a"], "a,b\n1,2\n", "episode_reward"),
    "wrong map": (["a.csv", "--map", "a"], "a\n1\n", "OURS=THEIRS"),
    "negative steps": (["a.csv", "--map", f"{R}=a", "--map", "env_steps=b"], "a,b\n1,-2\n", "cannot be"),
    "no format": (["a.xyz"], "a", "format unknown"),
    "our name": (["a.csv", "--as", "quickstart"], "a\n1\n", "is an experiment"),
    "broken events": (["tfevents"], "nonsense", "no numbers|no intact"),
    "broken wandb": (["run.wandb"], ":W&B-- nonsense nonsense", "no intact|no numbers"),
}


@pytest.mark.parametrize(("arguments", "text", "said"), WRONG.values(), ids=WRONG)
def test_wrong_input(flowmbpo, here, arguments, text, said):
    if text is not None:
        (here / arguments[0]).write_text(text)
    name = [] if "--as" in arguments else ["--as", "x"]
    outcome = flowmbpo("import", *arguments, *name)
    assert outcome.code == 2, outcome.text
    assert any(part in outcome.err.replace("\n", " ") for part in said.split("|")), outcome.err
