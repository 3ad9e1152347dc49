"""`flowmbpo export`: a folder that Hugging Face accepts and that acts by itself, and all points as a table."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from flowmbpo.tracking.reader import open_reader


@pytest.fixture
def here(trained_point, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(trained_point)
    return trained_point


def test_a_model_folder(flowmbpo, here, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    out = tmp_path / "shared"
    outcome = flowmbpo("export", "point/seed-0", "--out", out)
    assert outcome.code == 0, outcome.text
    names = {path.name for path in out.iterdir()}
    assert names >= {
        "README.md",
        "config.json",
        "model.safetensors",
        "policy.py",
        "learning_curve.png",
        "replay.html",
        "LICENSE",
    }
    assert "MIT License" in (out / "LICENSE").read_text()
    card = hub.ModelCard.load(out / "README.md")
    (run,) = open_reader(None).runs()
    (reward,) = [result for result in card.data.eval_results if result.metric_type == "mean_reward"]
    reader = open_reader(None)
    assert reward.metric_value == max(c.mean_reward for c in reader.checkpoints([run]))
    assert card.data.license == "mit"
    assert f"flowmbpo reproduce {run.run_id} --check" in card.text
    assert json.loads((out / "config.json").read_text())["experiment"]["name"] == "point"
    assert "from typing" not in card.text
    program = (  # the card's own lines, where flowmbpo is not installed
        "import sys; sys.modules['flowmbpo'] = None; sys.path.insert(0, '.')\n"
        "from pathlib import Path; from policy import Policy\n"
        "policy = Policy(Path('.'), 'config.json', 'model.safetensors')\n"
        "print(policy.predict([[0.5, 0.0], [-0.5, 0.0]]).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=out, capture_output=True, text=True, check=True)
    actions = json.loads(done.stdout)
    assert np.shape(actions) == (2, 1)
    assert flowmbpo("export", "point/seed-0", "--out", out).code == 2  # nothing is overwritten


def test_all_points(flowmbpo, here, tmp_path):
    assert flowmbpo("export", "point", "--csv", tmp_path / "a.csv", "--parquet", tmp_path / "a.parquet").code == 0
    csv, parquet = pd.read_csv(tmp_path / "a.csv"), pd.read_parquet(tmp_path / "a.parquet")
    assert len(csv) == len(parquet) > 100
    assert list(csv.columns) == ["name", "seed", "run_id", "metric", "step", "seconds", "value"]
    (run,) = open_reader(None).runs()
    for metric in ("train/epoch", "eval/mean_reward"):
        newest = csv[csv["metric"] == metric].iloc[-1]
        assert (newest["step"], newest["value"]) == (run.metrics[metric].step, run.metrics[metric].value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["point"], "--out DIR"),
        (["point", "point/seed-0", "--out", "x"], "one run"),
        (["point", "--onnx", "--csv", "x.csv"], "--onnx writes policy.onnx into the folder of --out"),
        (["nothing", "--csv", "x.csv"], "no run matches"),
    ],
)
def test_wrong_input(flowmbpo, here, arguments, said):
    outcome = flowmbpo("export", *arguments)
    assert outcome.code == 2
    assert said in outcome.err


def test_latex(flowmbpo, here):
    text = flowmbpo("compare", "point", "--latex").out
    assert text.startswith("\\begin{tabular}")
    assert "point & 1 & " in text
    assert text.count("\\\\\n") == 2
