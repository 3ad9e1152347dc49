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


def test_mistakes_are_exceptions(here):
    with pytest.raises(UserError, match="Did you mean `pointmass`"):
        flowmbpo.run("pointmas")
    with pytest.raises(RegistryError):
        flowmbpo.run("pointmass", overrides={"train.horizon": -1})
    with pytest.raises(UserError, match="there are no runs"):
        flowmbpo.load_policy("pointmass")
    assert not (here / "runs").exists()


def test_importing_the_package_loads_nothing():
    program = (
        "import sys, flowmbpo; print(len([m for m in sys.modules if m.startswith('flowmbpo')]), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "1 False\n"
