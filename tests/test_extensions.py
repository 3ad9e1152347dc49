"""A package brings a task and a world model of its own: the example does; a wrong one is answered in one message."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import run_process

REPOSITORY = Path(__file__).resolve().parents[1]
EXAMPLE = REPOSITORY / "examples" / "pendulum"
REGISTRY = EXAMPLE / "experiments.toml"


def command(*words: object, installed: Path, folder: Path, code: int = 0) -> str:
    variables = {"PYTHONPATH": str(installed), "COLUMNS": "200"}
    return run_process(*words, program=[sys.executable], folder=folder, code=code, variables=variables).text


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    pytest.importorskip("hatchling")
    target = tmp_path_factory.mktemp("site")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(target), str(EXAMPLE)]
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", *options], check=True)
    return target


@pytest.fixture
def flowmbpo(installed, tmp_path):
    return lambda *words, code=0: command("-m", "flowmbpo", *words, installed=installed, folder=tmp_path, code=code)


def test_the_example_is_small():
    files = [EXAMPLE / "pyproject.toml", *(EXAMPLE / "flowmbpo_pendulum").glob("*.py")]
    assert sum(len(path.read_text().splitlines()) for path in files) <= 150


def test_the_commands_know_its_sections(flowmbpo):
    assert "2 experiments" in flowmbpo("validate", REGISTRY)
    shown = json.loads(flowmbpo("show", "pendulum-linear", "--registry", REGISTRY, "--json"))
    assert shown["env"] == {"episode_length": 100, "kind": "pendulum", "torque": 2.0}
    assert shown["world_model"]["bias"] is True
    assert shown["params"]["dynamics"] == 3 * 4 + 3
    entry = json.loads(flowmbpo("schema"))["properties"]["experiments"]["additionalProperties"]["properties"]
    assert "pendulum" in entry["env"]["properties"]["kind"]["enum"]
    assert "N m" in entry["env"]["properties"]["torque"]["description"]


WRONG = {
    'env.torque = "much"': "must be a number above 0 and at most 100",
    "env.torqe = 2.0": "unknown key",
    "env.episode_length = 2": "no episode would hold a sequence",  # a rule of ours
    'env.kind = "pendulm"': "did you mean `pendulum`?",
    "world_model.latent_dim = 4": "must be 3, the width of an observation",  # as its section says
    'world_model = { kind = "linear", encoder = "mlp", units = [8], encoder_units = [8], latent_dim = 8 }': "simplices",
}


def test_its_sections_are_validated_like_ours(flowmbpo, tmp_path):
    text = REGISTRY.read_text()
    first = len(text.splitlines()) + 1
    for number, line in enumerate(WRONG):
        text += f'[experiments.wrong-{number}]\nextends = "pendulum"\n{line}\n'
    (tmp_path / "wrong.toml").write_text(text)
    problems = json.loads(flowmbpo("validate", "wrong.toml", "--json", code=2))["errors"]
    said = {problem["line"]: f"{problem['message']} {problem['hint']}" for problem in problems}
    assert sorted(said) == [first + 3 * number + 2 for number in range(len(WRONG))]
    for found, expected in zip(sorted(said), WRONG.values(), strict=True):
        assert expected in said[found]


def test_it_keeps_the_contracts(installed, tmp_path):
    tests = [REPOSITORY / "tests" / "envs" / "test_contract.py", "-k", "pendulum", "-p", "no:cacheprovider"]
    assert "9 passed" in command("-m", "pytest", "-q", *tests, installed=installed, folder=REPOSITORY)
    counts = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY / 'tests')!r})\n"
        "from pathlib import Path\n"
        "from test_registry_builds import compare, load_registry, build, dynamics_evaluations, estimate\n"
        f"spec = load_registry(Path({str(REGISTRY)!r})).resolve('pendulum-linear').spec\n"
        "compare(spec)\n"
        "assert dynamics_evaluations(build(spec, 0, 'cpu').algorithm) == estimate(spec).dynamics_evaluations\n"
    )
    command("-c", counts, installed=installed, folder=tmp_path)


def test_it_trains_and_is_drawn(flowmbpo, tmp_path):
    small = [f"train.{key}" for key in ("num_envs=32", "wm_first_updates=8", "wm_batch_size=32", "wm_updates=2")]
    options = [word for key in small for word in ("--set", key)]
    flowmbpo("run", "pendulum-linear", "--registry", REGISTRY, "--epochs", 2, "--device", "cpu", *options)
    (run,) = json.loads(flowmbpo("runs", "--json"))
    assert run["status"] == "FINISHED"
    assert (tmp_path / "runs" / run["run_id"] / "artifacts" / "replay.html").is_file()
    manifest = next((tmp_path / "runs" / run["run_id"] / "checkpoints").rglob("manifest.json"))
    assert json.loads(manifest.read_text())["code"]["flowmbpo-pendulum"] == "0.1.0"


def test_the_page_shows_the_example():
    page = (REPOSITORY / "docs" / "extending.md").read_text()
    example = [path.read_text() for path in EXAMPLE.rglob("*") if path.suffix in (".py", ".toml")]
    blocks = re.findall(r"```(?:toml|python)\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        assert any(block in text for text in example), block


GOOD = (EXAMPLE / "flowmbpo_pendulum" / "sections.py").read_text()


@pytest.mark.parametrize(
    ("point", "source", "said"),
    [
        ("pendulum = wrong:Missing", GOOD, "cannot be imported: AttributeError"),
        ("pendulum = wrong:PendulumSection", "1 / 0", "cannot be imported: ZeroDivisionError"),
        ("ant = wrong:PendulumSection", GOOD, "is a name of flowmbpo itself already"),
        ("pendulum = wrong:LinearSection", GOOD, "is no subclass of flowmbpo.spec.extensions.EnvExtension"),
        ("swing = wrong:PendulumSection", GOOD, 'must have kind: Literal["swing"] = "swing"'),
        ("pendulum = wrong:PendulumSection", GOOD.replace("environment:", "other:"), "does not say environment"),
    ],
)
def test_a_wrong_package_is_one_message(tmp_path, point, source, said):
    (tmp_path / "wrong.py").write_text(source)
    about = tmp_path / "wrong-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: wrong\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[flowmbpo.envs]\n{point}\n")
    answer = command("-m", "flowmbpo", "validate", installed=tmp_path, folder=REPOSITORY, code=2)
    assert answer.startswith("error: flowmbpo.envs")
    assert said in answer
    assert "of wrong" in answer
    assert len(answer.strip().splitlines()) == 1


def test_what_a_section_points_to_may_be_missing(tmp_path, installed):
    pointing = "import flowmbpo_pendulum.sections as s; s.PendulumSection.environment = 'nowhere:X'\n"
    make = "from flowmbpo.envs import make_env; make_env('pendulum', num_envs=1)"
    answer = command("-c", pointing + make, installed=installed, folder=tmp_path, code=1)
    assert "'pendulum' is built by nowhere:X, which cannot be imported: No module named 'nowhere'" in answer
