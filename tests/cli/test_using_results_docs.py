"""docs/using-results.md: every command in it runs, in the order of the page, on a point mass of three epochs."""

import re
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.command import run_process

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "using-results.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^flowmbpo .*$", "\n".join(re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)), re.MULTILINE)
(PYTHON,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
(SPACE,) = re.findall(r"```toml\n(\"actor.*?)```", PAGE, re.DOTALL)
SHORT = {"sweep": ["--trials", 1, "--epochs", 2, "--device", "cpu"], "run": ["--epochs", 1, "--device", "cpu"]}
OPTIONAL = {"--onnx": "onnxscript", "sweep": "optuna", "--out": "huggingface_hub"}


def test_every_command_runs(flowmbpo, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    registry = (REPOSITORY / "experiments.toml").read_text(encoding="utf-8")
    small = {
        "max_epochs = 40\nnum_envs = 32": "max_epochs = 3\nnum_envs = 32",
        "first_updates = 200": "first_updates = 4",
    }
    for was, now in small.items():
        assert was in registry
        registry = registry.replace(was, now)
    (tmp_path / "experiments.toml").write_text(registry, encoding="utf-8")
    (tmp_path / "space.toml").write_text(SPACE, encoding="utf-8")
    (tmp_path / "old.csv").write_text("frames,wall,return\n0,0,1\n2048,10,30\n", encoding="utf-8")
    assert flowmbpo("run", "pointmass", "--device", "cpu").code == 0
    program = PYTHON + "\nassert actions.shape == (len(policy.input_example), 1), actions.shape\n"
    run_process("-c", program, program=[sys.executable], folder=tmp_path)
    assert len(COMMANDS) >= 14
    for line in COMMANDS:
        words = shlex.split(line, comments=True)[1:]
        if any(key in words and not find_spec(module) for key, module in OPTIONAL.items()):
            continue
        for word, replaced in {
            "https://example.org/hook": "http://127.0.0.1:9/",
            "mail -s flowmbpo me": "true",
        }.items():
            words = [replaced if each == word else each for each in words]
        outcome = flowmbpo(*words, *(["--dry-run"] if "--submit" in words else SHORT.get(words[0], [])))
        assert outcome.code == 0, (line, outcome.text)
        if words[0] == "reproduce" and "--check" in words:
            assert "equal to the bit" in outcome.text


@pytest.mark.parametrize("block", re.findall(r"```toml\n(notify.*?)```", PAGE, re.DOTALL))
def test_the_configuration_is_read(block, tmp_path, monkeypatch):
    from flowmbpo.cli.notify import usual_target

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("FLOWMBPO_NOTIFY", raising=False)
    (tmp_path / "flowmbpo").mkdir()
    (tmp_path / "flowmbpo" / "config.toml").write_text(block, encoding="utf-8")
    assert usual_target() == "https://example.org/hook"
