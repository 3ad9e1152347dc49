"""Every row of "To add something" in docs/architecture.md, done in a copy of the package: what it says is enough."""

import json
import shutil
from pathlib import Path

import pytest

from tests.command import run_process

ROOT = Path(__file__).resolve().parents[1]

EXPERIMENT = """
[experiments.added]
extends = "pointmass"
env = { kind = "line", episode_length = 10 }

[experiments.added.world_model]
kind = "flow"
integrator = "midpoint"
substeps = 2
velocity = "linear"
encoder = "observation"
units = [8]
encoder_units = []
latent_dim = 2

[experiments.added.train]
max_epochs = 2
num_envs = 4
wm_batch_size = 8
wm_first_updates = 2
log_interval = 1
"""

INTEGRATOR = '''


def midpoint(velocity: Velocity, z: Tensor, tau: float, h: float) -> Tensor:
    """Order 2, two evaluations."""
    half = z.add(velocity(z, tau), alpha=h / 2)
    return z.add(velocity(half, tau + h / 2), alpha=h)


INTEGRATORS["midpoint"] = Integrator(midpoint, order=2)
'''

ENVIRONMENT = '''"""A point mass by another name."""

from flowmbpo.envs.pointmass import PointMassEnv


class LineEnv(PointMassEnv):
    """As it is."""
'''

SECTION = '''-


class LineEnvSpec(Section):
    """Another task."""

    observation_dim: ClassVar[int] = 2
    action_dim: ClassVar[int] = 1

    kind: Literal["line"] = "line"
    episode_length: Annotated[int, Field(ge=1)] = Field(50, description="control steps until truncation")


# '''

COMMAND = '''"""`flowmbpo hello`."""

import typer


def hello() -> None:
    """Greet."""
    typer.echo("hello")
'''


def insert(path: Path, after: str, text: str) -> None:
    old = path.read_text(encoding="utf-8")
    assert old.count(after) == 1, f"{path}: {after!r}"
    path.write_text(old.replace(after, after + text), encoding="utf-8")


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """Runs `flowmbpo ARGUMENTS...` of the copy, in a folder of its own."""
    copy, work = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("work")
    shutil.copytree(ROOT / "flowmbpo", copy / "flowmbpo", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "experiments.toml", copy / "flowmbpo")  # where a wheel has it
    package = copy / "flowmbpo"
    # an experiment
    with open(package / "experiments.toml", "a", encoding="utf-8") as registry:
        registry.write(EXPERIMENT)
    # an integrator
    with open(package / "models/integrators.py", "a", encoding="utf-8") as module:
        module.write(INTEGRATOR)
    insert(package / "spec/schema.py", "STAGES = {", '"midpoint": 2, ')
    # an environment
    (package / "envs/line.py").write_text(ENVIRONMENT, encoding="utf-8")
    insert(package / "envs/__init__.py", "ENVIRONMENTS = {", '"line": ("flowmbpo.envs.line", "LineEnv"),')
    insert(package / "spec/schema.py", "# --- environment -", SECTION)
    insert(package / "spec/schema.py", "] = (AntEnvSpec, ", "LineEnvSpec, ")
    # a command
    (package / "cli/hello.py").write_text(COMMAND, encoding="utf-8")
    insert(package / "cli/app.py", '"reproduce": "reproduce.reproduce",', ' "hello": "hello.hello",')
    # a metric
    row = "\n| `train/answer` | 1 | ↑ | the answer | trainer |"
    insert(package / "tracking/metrics.md", "epochs finished when the point was written | trainer |", row)
    insert(package / "training/trainer.py", 'metrics["train/epoch"] =', ' metrics["train/answer"] =')

    def run(*arguments: object, code: int = 0) -> str:
        done = run_process(*arguments, folder=work, variables={"PYTHONPATH": str(copy)}, code=code)
        return done.err if code else done.out

    run.work = work
    return run


def test_an_experiment(command):
    assert "added" in [row["name"] for row in json.loads(command("list", "--json"))]
    assert json.loads(command("validate", "--json"))["valid"]


def test_a_command(command):
    assert command("hello") == "hello\n"
    assert "Greet." in command("--help")


def test_the_rules_know_an_added_environment(command):
    said = command("run", "added", "--dry-run", "--set", "world_model.latent_dim=5", code=2)
    assert "must be 2, the width of an observation" in said


def test_an_integrator_an_environment_and_a_metric(command):
    (result,) = json.loads(command("run", "added", "--json"))
    assert (result["status"], result["epochs"]) == ("FINISHED", 2)
    journal = (command.work / result["directory"] / "tracking" / "journal.jsonl").read_text()
    assert '"train/answer":2.0' in journal
    assert '"world_model.integrator":"midpoint"' in journal
    (row,) = json.loads(command("eval", result["run_id"], "--episodes", 2, "--json"))
    assert row["mean_length"] == 10
