"""`list`, `show`, `schema` and what the shell completes, as a user calls them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from flowmbpo.cli.completion import experiment_names, run_ids, spec_keys
from tests.command import run_process

REPOSITORY = Path(__file__).resolve().parents[2]
REGISTRY = REPOSITORY / "experiments.toml"


@pytest.fixture(autouse=True)
def in_repository(monkeypatch):
    monkeypatch.chdir(REPOSITORY)


def test_list_is_the_design_table(flowmbpo):
    outcome = flowmbpo("list")
    assert outcome.code == 0
    row = next(line for line in outcome.out.splitlines() if "48M-flow-v2" in line)
    for cell in ("flow-v2", "48M", "18,489,345", "1792 ×3", "768", "heun", "4", "20,000", "16", "1,200–1,400"):
        assert cell in row
    assert "48M-flow " not in outcome.out  # abstract


def test_list_json_has_the_promised_keys(flowmbpo):
    rows = flowmbpo("list", "--json").json()
    promised = [
        "name",
        "aliases",
        "description",
        "world_model",
        "nominal_params",
        "params",
        "latent_dim",
        "integrator",
        "substeps",
        "wm_batch_size",
        "max_epochs",
        "horizon",
        "expected",
    ]
    assert all(set(promised) <= set(row) for row in rows)
    row = next(row for row in rows if row["name"] == "48M-flow-v2")
    assert row["aliases"] == ["flow-v2"]
    assert (row["nominal_params"], row["params"], row["substeps"]) == ("48M", 18_489_345, 4)
    assert row["expected"]["peak_reward"] == [1200, 1400]


def test_show_tells_values_origins_and_counts(flowmbpo):
    outcome = flowmbpo("show", "flow-v2")
    assert outcome.code == 0
    for text in ("world_model.substeps", "48M-flow-v2, line", "default", "18,489,345", "20,373,790", "GFLOP"):
        assert text in outcome.out


def test_show_json(flowmbpo):
    document = flowmbpo("show", "48M-flow-v3", "--json").json()
    assert document["name"] == "48M-flow-v3"
    assert document["world_model"]["integrator"] == "euler"
    assert document["params"]["encoder"] == 7_883_520
    assert document["params"]["world_model"] == 18_489_345
    lines = REGISTRY.read_text().splitlines()
    origin = document["origins"]["world_model.units"]
    assert origin["entry"] == "48M-flow"
    assert "units" in lines[origin["line"] - 1]
    assert document["origins"]["train.gamma"] == {"entry": None, "file": None, "line": None}
    assert [warning["key"] for warning in document["warnings"]] == ["world_model.substeps"]


def test_show_with_an_override_names_it_as_origin(flowmbpo):
    outcome = flowmbpo("show", "5M-baseline", "--set", "train.num_envs=64", "--json")
    assert outcome.json()["train"]["num_envs"] == 64
    assert outcome.json()["origins"]["train.num_envs"]["file"] == "--set"


def test_show_two_tells_only_what_differs(flowmbpo):
    document = flowmbpo("show", "48M-flow-v1", "48M-flow-v2", "--json").json()
    found = {key for key in document["difference"] if not key.startswith("expected")}
    assert found == {"world_model.substeps"}
    assert document["difference"]["world_model.substeps"] == [2, 4]
    outcome = flowmbpo("show", "48M-flow-v1", "48M-flow-v2")
    assert "world_model.substeps" in outcome.out
    assert "train.horizon" not in outcome.out


def test_show_the_same_twice(flowmbpo):
    outcome = flowmbpo("show", "flow-v2", "48M-flow-v2")
    assert outcome.code == 0
    assert "differ in nothing" in outcome.err


@pytest.mark.parametrize("command", ["schema", "runs"])
def test_a_registry_that_is_not_there_is_said_also_where_it_is_not_needed(flowmbpo, command, tmp_path):
    done = flowmbpo(command, "--registry", tmp_path / "nope.toml")
    assert (done.code, done.out) == (2, "")
    assert str(tmp_path / "nope.toml") in done.err
    assert "no such file" in done.err


def test_schema_is_json(flowmbpo):
    assert "experiments" in flowmbpo("schema").json()["properties"]


# --- wrong options: what must be named -------------------------------------------------------------------------------

WRONG = {
    "unknown experiment": (["show", "48M-flw-v2"], ["48M-flw-v2", "Did you mean `48M-flow-v2`"]),
    "unknown second experiment": (["show", "quickstart", "mini-basline"], ["Did you mean `mini-baseline`"]),
    "abstract experiment": (["show", "48M-flow"], ["abstract", "48M-flow-v1"]),
    "another case": (["show", "QUICKSTART"], ["Did you mean `quickstart`"]),
    "empty name": (["show", ""], ["unknown experiment"]),
    "name with escapes": (["show", "\x1b[31mred"], ["unknown experiment"]),
    "no name": (["show"], ["Missing argument"]),
    "unknown key": (["show", "quickstart", "--set", "train.horizn=16"], ["did you mean `horizon`?"]),
    "unknown section": (["show", "quickstart", "--set", "trian.horizon=16"], ["did you mean `train`?"]),
    "key without section": (["show", "quickstart", "--set", "horizon=16"], ["did you mean `train.horizon`?"]),
    "no equals sign": (["show", "quickstart", "--set", "train.horizon"], ["key=value"]),
    "no value": (["show", "quickstart", "--set", "train.horizon="], ["no value"]),
    "no key": (["show", "quickstart", "--set", "=16"], ["key=value"]),
    "double dot": (["show", "quickstart", "--set", "train..horizon=16"], ["key=value"]),
    "horizon 4": (["show", "5M-baseline", "--set", "train.horizon=4"], ["292", "allow_short_horizon"]),
    "fraction": (["show", "quickstart", "--set", "train.horizon=16.5"], ["whole number"]),
    "truth value": (["show", "quickstart", "--set", "train.horizon=true"], ["whole number"]),
    "quoted number": (["show", "quickstart", "--set", 'train.horizon="16"'], ["without quotation marks"]),
    "leading zeros": (["show", "quickstart", "--set", "train.horizon=007"], ["write 7\n"]),
    "a bare point": (["show", "quickstart", "--set", "train.gamma=.9"], ["write 0.9\n"]),
    "a large truth": (["show", "quickstart", "--set", "env.early_termination=True"], ["write true\n"]),
    "word": (["show", "quickstart", "--set", "train.num_envs=many"], ["whole number", "many"]),
    "nan": (["show", "quickstart", "--set", "train.gamma=nan"], ["train.gamma"]),
    "out of range": (["show", "quickstart", "--set", "train.gamma=1.5"], ["discount"]),
    "unknown choice": (["show", "flow-v2", "--set", "world_model.integrator=hune"], ["did you mean `heun`?"]),
    "flow key without flow": (["show", "5M-baseline", "--set", "world_model.substeps=4"], ['"flow"']),
    "kind alone": (["show", "5M-baseline", "--set", "world_model.kind=flow"], ["world_model.integrator", "missing"]),
    "unclosed list": (["show", "quickstart", "--set", "actor.units=[1, 2"], ["list"]),
    "more than a value": (["show", "quickstart", "--set", "train.horizon=16\nname=3"], ["whole number"]),
    "twice": (["show", "quickstart", "--set", "train.gamma=0.9", "--set", "train.gamma=0.8"], ["twice"]),
    "clash": (["show", "quickstart", "--set", "train={gamma=0.9}", "--set", "train.gamma=0.8"], ["clashes"]),
    "name": (["show", "quickstart", "--set", "name=x"], ["cannot be set"]),
    "extends": (["show", "quickstart", "--set", "extends=mini"], ["cannot be set"]),
    "section as value": (["show", "quickstart", "--set", "train=3"], ["table"]),
    "key below a value": (["show", "quickstart", "--set", "train.gamma.x=3"], ["number"]),
    "key below a label": (["show", "quickstart", "--set", "family.x=3"], ["family"]),
    "nested": (["show", "quickstart", "--set", f"actor.units={'[' * 5000}"], ["list"]),
    "digits": (["show", "quickstart", "--set", f"train.horizon={'9' * 5000}"], ["train.horizon"]),
    "two at once": (["show", "quickstart", "--set", "train.horizon=0", "--set", "train.gamma=0"], ["2 problems"]),
    "no such registry": (["list", "--registry", "no/such.toml"], ["no/such.toml", "no such file"]),
    "a directory": (["validate", "."], ["directory"]),
    "a device": (["validate", "/dev/null"], ["not a regular file"]),
    "no such path": (["validate", "none.toml"], ["none.toml"]),
    "unknown option": (["list", "--jsn"], ["--json"]),
    "unknown command": (["lst"], ["lst"]),
    "too many names": (["show", "a", "b", "c"], ["c"]),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case.replace(" ", "-"))
def test_wrong_options(case, flowmbpo):
    arguments, words = WRONG[case]
    outcome = flowmbpo(*arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    assert "\x1b" not in outcome.err
    for word in words:
        assert word in outcome.err


def test_a_surrogate_on_the_command_line_ends_in_a_message():
    """Bytes that are no UTF-8 reach Python as surrogates, which cannot be printed."""
    done = run_process("show", b"\xff\xfe", folder=REPOSITORY, code=2)
    assert "unknown experiment" in done.err


def test_an_ascii_terminal_gets_escapes_instead_of_a_crash():
    surroundings = {"PATH": "/usr/bin:/bin", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    assert "48M-flow-v2" in run_process("list", folder=REPOSITORY, only=surroundings).out


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["show", "flow-v2"], ["validate"], ["schema"]])
def test_no_heavy_import(arguments):
    code = (
        "import sys\nfrom flowmbpo.cli.app import main\n"
        f"sys.argv = ['flowmbpo', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "heavy = {'torch', 'warp', 'mlflow', 'pandas', 'matplotlib', 'scipy', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=REPOSITORY, check=False, text=True)
    assert done.returncode == 0, done.stderr


# --- completion ------------------------------------------------------------------------------------------------------


def context(**parameters: object) -> typer.Context:
    found = typer.Context(typer.main.get_command(typer.Typer(callback=lambda: None)))
    found.params.update(parameters)
    return found


def test_names_complete(monkeypatch):
    monkeypatch.delenv("FLOWMBPO_REGISTRY", raising=False)
    assert experiment_names(context(), "48M-flow-v") == ["48M-flow-v1", "48M-flow-v2", "48M-flow-v3"]
    assert experiment_names(context(), "flow") == ["flow-v2"]
    assert "48M-flow" not in experiment_names(context(), "")


def test_names_complete_in_a_registry_with_mistakes(tmp_path):
    file = tmp_path / "wrong.toml"
    file.write_text('[experiments.abc]\nhorizn = 3\naliases = ["abd"]\n')
    assert experiment_names(context(registry=file), "ab") == ["abc", "abd"]
    assert experiment_names(context(registry=tmp_path), "") == []


def test_dotted_keys_and_their_values_complete():
    assert spec_keys(context(), "train.hor") == ["train.horizon="]
    assert spec_keys(context(), "world_model.integrator=") == [
        "world_model.integrator=euler",
        "world_model.integrator=heun",
        "world_model.integrator=rk4",
    ]
    assert spec_keys(context(), "train.allow_short_horizon=t") == ["train.allow_short_horizon=true"]
    kinds = [key.removeprefix("world_model.kind=") for key in spec_keys(context(), "world_model.kind=")]
    assert {"mlp", "flow", "gaussian", "ensemble", "simulator"} == set(kinds)


def test_run_ids_complete_to_nothing_without_a_store(tmp_path):
    assert run_ids(context(tracking_uri=f"sqlite:///{tmp_path / 'none.db'}"), "") == []


def test_shell_completion_prints_names():
    environment = {
        "PATH": "/usr/bin:/bin",
        "_FLOWMBPO_COMPLETE": "complete_bash",
        "COMP_WORDS": "flowmbpo show 48M-flow-v",
        "COMP_CWORD": "2",
    }
    program = Path(sys.executable).parent / "flowmbpo"
    done = subprocess.run([program], capture_output=True, cwd=REPOSITORY, check=False, env=environment, text=True)
    assert done.stdout.split() == ["48M-flow-v1", "48M-flow-v2", "48M-flow-v3"]


def test_a_problem_shows_its_line_with_a_caret_below_the_value(flowmbpo, tmp_path):
    file = tmp_path / "wide.toml"
    file.write_text('[experiments."größe"]\nfamily = "日本"\ntrain.horizon = 1 # ü\n')
    lines = flowmbpo("validate", file).err.splitlines()
    at = next(index for index, line in enumerate(lines) if "train.horizon = 1 #" in line)
    assert lines[at + 1].index("^") == lines[at].index("train.horizon")
    assert json.dumps("größe", ensure_ascii=False) in "".join(lines)
