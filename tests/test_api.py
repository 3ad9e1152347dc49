"""The Python interface: what README shows, in the order in which it stands there, and its errors."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import flowmbpo
from flowmbpo.errors import UserError
from flowmbpo.spec.problems import RegistryError

README = Path(__file__).resolve().parents[1] / "README.md"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for variable in ("MLFLOW_TRACKING_URI", "FLOWMBPO_REGISTRY"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


def test_what_readme_shows(here):
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    names: dict = {}
    exec(compile(block, str(README), "exec"), names)
    results, table, actions = names["results"], names["table"], names["actions"]
    assert list(results["status"]) == ["FINISHED"] * 2
    assert list(flowmbpo.runs()["seed"]) == [1, 0]
    assert table.loc[0, "seeds"] == 2
    assert actions.shape == (8, 1)
    assert actions.abs().max() <= 1
    evaluated = flowmbpo.load_policy(results.loc[0, "run_id"], checkpoint_name="last")
    evaluated.begin(8)
    assert (evaluated.act(names["observations"])[0] == evaluated(names["observations"])).all()
    with pytest.raises(ValueError, match="observations of 3 numbers: this policy was trained on 2"):
        evaluated([[0.0, 0.0, 0.0]])


def test_mistakes_are_exceptions(here):
    with pytest.raises(UserError, match="Did you mean `pointmass`"):
        flowmbpo.run("pointmas")
    with pytest.raises(RegistryError):
        flowmbpo.run("pointmass", overrides={"train.horizon": -1})
    with pytest.raises(UserError, match="there are no runs"):
        flowmbpo.load_policy("pointmass")
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"epochs": 0}, "epochs 0: allowed are whole numbers from 1"),
        ({"epochs": "6"}, "epochs '6': allowed"),
        ({"time_limit": -1}, "time limit -1: allowed are seconds"),
        ({"time_limit": "30m"}, "time limit '30m': allowed are seconds"),
        ({"time_limit": float("nan")}, "time limit nan"),
        ({"seeds": [3, 3]}, "seed 3 is named twice"),
        ({"seeds": -1}, "seed -1: allowed are 0 to 2147483647"),
        ({"seeds": [2**70]}, "allowed are 0 to"),
        ({"seeds": ["a"]}, "seed 'a': allowed"),
        ({"seeds": [1.5]}, "seed 1.5: allowed"),
        ({"overrides": "train.horizon=-1"}, "train.horizon"),
    ],
)
def test_arguments_are_checked_before_anything_starts(here, arguments, said):
    with pytest.raises(UserError, match=re.escape(said)):
        flowmbpo.run("pointmass", **arguments)
    assert not (here / "runs").exists()
    assert not (here / "mlflow.db").exists()


def test_data_of_every_experiment_is_looked_for_before_the_first_is_trained(here):
    with pytest.raises(UserError, match="there is no file nope"):
        flowmbpo.run(["pointmass", "latent-baseline"], overrides={"train.pretrain": {"data": "nope", "updates": 1}})
    assert not (here / "runs").exists()


def test_what_is_doubtful_is_said_before_anything_is_trained(here, caplog):
    with pytest.raises(UserError, match="ftp"):
        flowmbpo.run("latent-baseline", overrides={"train.wm_sequence_length": 8}, tracking_uri="ftp://nowhere")
    assert "drifts off" in caplog.text


def test_importing_the_package_loads_nothing():
    program = (
        "import sys, flowmbpo; print(len([m for m in sys.modules if m.startswith('flowmbpo')]), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "1 False\n"
