"""A table of wrong registries: each must end in exit code 2 with the culprit, its line and no traceback.

The culprit's line carries the mark `#!`. Each case changes a registry that is valid otherwise.
"""

import pytest

# A valid registry; a case replaces a line of it or adds something at its end.
VALID = """\
[experiments.parent]
abstract = true

[experiments.parent.world_model]
kind = "mlp"
units = [64, 64]
encoder_units = [64]
latent_dim = 64

[experiments.parent.train]
horizon = 16
max_epochs = 100

[experiments.child]
extends = "parent"
aliases = ["kid"]
description = "a child"

[experiments.flow]
extends = "parent"

[experiments.flow.world_model]
kind = "flow"
units = [64, 64]
encoder_units = [64]
latent_dim = 64
integrator = "heun"
substeps = 2

[groups.all]
question = "which is better?"
members = ["child", "flow"]
varies = ["world_model.kind"]

[references.paper]
kind = "published"
title = "a paper"
source = "its table 1"
final_reward = 9546
curves = "PWM"
"""


def replace(old: str, new: str, count: int = 1) -> str:
    assert old in VALID
    return VALID.replace(old, new, count)


def add(text: str) -> str:
    return VALID + text


def train(line: str) -> str:
    return replace("horizon = 16\n", f"horizon = 16\n{line}\n")


def world_model(line: str) -> str:
    return replace("latent_dim = 64\n", f"latent_dim = 64\n{line}\n")


def child(line: str) -> str:
    return replace('description = "a child"\n', f'description = "a child"\n{line}\n')


def flow(line: str) -> str:
    return replace("substeps = 2\n", f"substeps = 2\n{line}\n")


# id: (text, experiment, dotted key, words that must be there)
CASES: dict[str, tuple[str, str | None, str, list[str]]] = {
    # types: nothing is converted silently
    "text for a number": (
        replace("horizon = 16", 'horizon = "16" #!'),
        "parent",
        "train.horizon",
        ["whole number", '"16"', "write 16"],
    ),
    "true for a number": (replace("max_epochs = 100", "max_epochs = true #!"), "parent", "train.max_epochs", ["true"]),
    "fraction for a whole number": (replace("horizon = 16", "horizon = 16.5 #!"), "parent", "train.horizon", ["16.5"]),
    "16.0 for a whole number": (
        replace("horizon = 16", "horizon = 16.0 #!"),
        "parent",
        "train.horizon",
        ["write 16 without"],
    ),
    "nan": (train("gamma = nan #!"), "parent", "train.gamma", ["nan"]),
    "infinity": (train("wm_learning_rate = inf #!"), "parent", "train.wm_learning_rate", ["inf"]),
    "negative infinity": (train("td_lambda = -inf #!"), "parent", "train.td_lambda", ["-inf"]),
    "number for a truth value": (
        child("env.early_termination = 1 #!"),
        "child",
        "env.early_termination",
        ["true or false"],
    ),
    "text for a truth value": (
        child('env.stochastic_init = "true" #!'),
        "child",
        "env.stochastic_init",
        ["write true without"],
    ),
    "number for a text": (child("run_group = 5 #!"), "child", "run_group", ["text"]),
    "number for a list": (
        replace("encoder_units = [64]", "encoder_units = 64 #!"),
        "parent",
        "world_model.encoder_units",
        ["list"],
    ),
    "text in a list": (replace("units = [64, 64]", 'units = [64, "64"] #!'), "parent", "world_model.units", ["64"]),
    "truth value in a list": (
        replace("units = [64, 64]", "units = [true, 64] #!"),
        "parent",
        "world_model.units",
        ["true"],
    ),
    "list for a number": (
        replace("latent_dim = 64", "latent_dim = [64] #!"),
        "parent",
        "world_model.latent_dim",
        ["list"],
    ),
    "date for a number": (train("num_envs = 2025-11-18 #!"), "parent", "train.num_envs", ["2025-11-18"]),
    "number for a section": (
        replace(
            "[experiments.flow.world_model]",
            "[experiments.flow]\n[experiments.x]\nextends = 'child'\ntrain = 3 #!\n[experiments.flow.world_model]",
        ).replace("[experiments.flow]\n", "", 1),
        "x",
        "train",
        ["table"],
    ),
    "table for a number": (train("num_envs = { value = 3 } #!"), "parent", "train.num_envs", ["table"]),
    # ranges
    "zero environments": (train("num_envs = 0 #!"), "parent", "train.num_envs", ["from 1 to"]),
    "negative epochs": (replace("max_epochs = 100", "max_epochs = -1 #!"), "parent", "train.max_epochs", ["-1"]),
    "discount above 1": (train("gamma = 1.01 #!"), "parent", "train.gamma", ["discount per control step"]),
    "learning rate zero": (child("actor.learning_rate = 0.0 #!"), "child", "actor.learning_rate", ["above 0"]),
    "Adam beta of 1": (train("adam_betas = [0.9, 1.0] #!"), "parent", "train.adam_betas", ["below 1"]),
    "one Adam beta": (train("adam_betas = [0.9] #!"), "parent", "train.adam_betas", ["2 numbers"]),
    "three Adam betas": (train("adam_betas = [0.9, 0.9, 0.9] #!"), "parent", "train.adam_betas", ["2 numbers"]),
    "empty units": (replace("units = [64, 64]", "units = [] #!"), "parent", "world_model.units", ["1 to 16"]),
    "zero width": (replace("units = [64, 64]", "units = [64, 0] #!"), "parent", "world_model.units", ["0"]),
    "17 mass matrix substeps": (
        child("env.mass_matrix_interval = 17 #!"),
        "child",
        "env.mass_matrix_interval",
        ["1 to 16"],
    ),
    "a number beyond 64 bits": (
        train("num_envs = 99999999999999999999999999 #!"),
        "parent",
        "train.num_envs",
        ["from 1 to"],
    ),
    "negative memory": (child("resources.memory_gb = -1 #!"), "child", "resources.memory_gb", ["GB"]),
    "time limit in words": (child('resources.time_limit = "12h" #!'), "child", "resources.time_limit", ["12:00:00"]),
    # choices
    "unknown integrator": (
        replace('integrator = "heun"', 'integrator = "huen" #!'),
        "flow",
        "world_model.integrator",
        ["did you mean `heun`?"],
    ),
    "unknown schedule": (train('lr_schedule = "Linear" #!'), "parent", "train.lr_schedule", ["did you mean `linear`?"]),
    "unknown tau sampling": (flow('tau_sampling = "middle" #!'), "flow", "world_model.tau_sampling", ["midpoint"]),
    "unknown kind": (
        replace('kind = "flow"', 'kind = "flwo" #!'),
        "flow",
        "world_model.kind",
        ["did you mean `flow`?"],
    ),
    "kind of another type": (replace('kind = "flow"', "kind = 3 #!"), "flow", "world_model.kind", ["mlp", "flow"]),
    "unknown environment": (child('env.kind = "humanoid" #!'), "child", "env.kind", ["ant"]),
    # names of keys
    "misspelt key": (
        replace("max_epochs = 100", "max_epocs = 100 #!"),
        "parent",
        "train.max_epocs",
        ["did you mean `max_epochs`?"],
    ),
    "key with a dash": (train("num-envs = 64 #!"), "parent", "train.num-envs", ["did you mean `num_envs`?"]),
    "key in capitals": (train("Gamma = 0.9 #!"), "parent", "train.Gamma", ["did you mean `gamma`?"]),
    "key of another section": (child("horizon = 16 #!"), "child", "horizon", ["did you mean `train.horizon`?"]),
    "misspelt section": (
        replace("[experiments.parent.train]", "[experiments.parent.trian] #!"),
        "parent",
        "trian",
        ["did you mean `train`?"],
    ),
    "misspelt extends": (
        replace('extends = "parent"\naliases', 'extend = "parent" #!\naliases'),
        "child",
        "extend",
        ["did you mean `extends`?"],
    ),
    "unknown key, quoted": (train('"learning rate" = 3 #!'), "parent", "train.learning rate", ["unknown key"]),
    "key with an escape": (train('"a\\u001b[31mb" = 3 #!'), "parent", "train.a\x1b[31mb", ["unknown key"]),
    "misspelt top-level table": (
        add("[experimentz.x] #!\na = 1\n"),
        None,
        "experimentz",
        ["did you mean `experiments`?"],
    ),
    "key at the top": ("horizon = 16 #!\n" + VALID, None, "horizon", ["unknown"]),
    "substeps without flow": (world_model("substeps = 4 #!"), "parent", "world_model.substeps", ['"flow"']),
    "integrator without flow": (
        child('world_model.integrator = "heun" #!'),
        "child",
        "world_model.integrator",
        ['"flow"'],
    ),
    "name inside": (child('name = "other" #!'), "child", "name", ["that of its table"]),
    # missing
    "no epochs": (
        add(
            "[experiments.x.world_model]\nkind = 'mlp'\nunits = [8]\nencoder_units = [8]\nlatent_dim = 8\n"
            "[experiments.x.train] #!\n"
        ),
        "x",
        "train.max_epochs",
        ["missing"],
    ),
    "no train": (
        add("[experiments.x.world_model] #!\nkind = 'mlp'\nunits = [8]\nencoder_units = [8]\nlatent_dim = 8\n"),
        "x",
        "train",
        ["missing"],
    ),
    "flow without substeps": (
        replace("substeps = 2\n", "").replace("[experiments.flow.world_model]", "[experiments.flow.world_model] #!"),
        "flow",
        "world_model.substeps",
        ["missing"],
    ),
    "switch of kind forgets the rest": (
        child('world_model.kind = "flow" #!'),
        "child",
        "world_model.integrator",
        ["missing"],
    ),
    # rules between keys
    "horizon 4": (replace("horizon = 16", "horizon = 4 #!"), "child", "train.horizon", ["292", "allow_short_horizon"]),
    "horizon 15": (replace("horizon = 16", "horizon = 15 #!"), "child", "train.horizon", ["16"]),
    "latent not in groups": (
        replace("latent_dim = 64", "latent_dim = 60 #!"),
        "child",
        "world_model.latent_dim",
        ["56 or 64"],
    ),
    "groups not in latent": (
        child("world_model.simnorm_dim = 7 #!"),
        "child",
        "world_model.simnorm_dim",
        ["latent_dim"],
    ),
    "embedding for one task": (child("world_model.task_dim = 96 #!"), "child", "world_model.task_dim", ["single task"]),
    "tasks without embedding": (child("world_model.multitask = true #!"), "child", "world_model.multitask", ["task"]),
    "replay smaller than a batch": (
        child("train.replay_capacity = 1000 #!"),
        "child",
        "train.replay_capacity",
        ["17,408"],
    ),
    "one environment for a big batch": (child("train.num_envs = 1 #!"), "child", "train.num_envs", ["985"]),
    "batch beyond the environments": (
        child("train = { wm_batch_size = 500_000, replay_capacity = 100_000_000 } #!"),
        "child",
        "train.wm_batch_size",
        ["filled"],
    ),
    "replay beyond the host": (
        child("train.replay_capacity = 900_000_000 #!"),
        "child",
        "train.replay_capacity",
        ["host memory"],
    ),
    "too little host memory": (child("resources.memory_gb = 1 #!"), "child", "resources.memory_gb", ["host memory"]),
    "too little GPU memory": (
        child("resources.gpu_memory_gb = 0.5 #!"),
        "child",
        "resources.gpu_memory_gb",
        ["device memory"],
    ),
    "episodes shorter than the horizon": (
        child("env.episode_length = 10 #!"),
        "child",
        "env.episode_length",
        ["horizon"],
    ),
    "more minibatches than samples": (
        child("critic.minibatches = 99_999 #!"),
        "child",
        "critic.minibatches",
        ["2,048"],
    ),
    "schedule that grows": (
        child("actor.learning_rate = 1e-6 #!"),
        "child",
        "actor.learning_rate",
        ["final_learning_rate"],
    ),
    "log sigma below its floor": (
        child("actor.log_std_init = -3.0 #!"),
        "child",
        "actor.log_std_init",
        ["log_std_min"],
    ),
    "expectation upside down": (
        child("expected.peak_reward = [1200, 1000] #!"),
        "child",
        "expected.peak_reward",
        ["lower"],
    ),
    "several actor updates alongside": (child("actor.updates = 4 #!"), "child", "actor.updates", ["alongside"]),
    "sequence before there is data": (
        child("train.wm_sequence_length = 40 #!"),
        "child",
        "train.wm_sequence_length",
        ["16"],
    ),
    # inheritance, aliases
    "unknown parent": (
        replace('extends = "parent"\naliases', 'extends = "parnet" #!\naliases'),
        "child",
        "extends",
        ["did you mean `parent`?"],
    ),
    "own parent": (
        replace('extends = "parent"\naliases', 'extends = "child" #!\naliases'),
        "child",
        "extends",
        ["circle"],
    ),
    "circle of three": (
        add('[experiments.a]\nextends = "b" #!\n[experiments.b]\nextends = "c"\n[experiments.c]\nextends = "a"\n'),
        "a",
        "extends",
        ["a → b → c → a"],
    ),
    "two parents": (
        replace('extends = "parent"\naliases', 'extends = ["parent", "flow"] #!\naliases'),
        "child",
        "extends",
        ["one"],
    ),
    "alias as parent": (add('[experiments.x]\nextends = "kid" #!\n'), "x", "extends", ["alias", "child"]),
    "alias is a name": (replace('aliases = ["kid"]', 'aliases = ["flow"] #!'), "child", "aliases", ["already"]),
    "alias twice": (add('[experiments.x]\nextends = "child"\naliases = ["kid"] #!\n'), "x", "aliases", ["child"]),
    "alias with a blank": (replace('aliases = ["kid"]', 'aliases = ["a kid"] #!'), "child", "aliases", ["letters"]),
    "aliases as text": (replace('aliases = ["kid"]', 'aliases = "kid" #!'), "child", "aliases", ["list"]),
    "alias of an abstract entry": (
        replace("abstract = true", 'abstract = true\naliases = ["p"] #!'),
        "parent",
        "aliases",
        ["abstract"],
    ),
    "abstract as text": (replace("abstract = true", 'abstract = "yes" #!'), "parent", "abstract", ["true or false"]),
    "name with a slash": (add('[experiments."a/b"] #!\nextends = "child"\n'), "a/b", "name", ["letters"]),
    "empty name": (add('[experiments.""] #!\nextends = "child"\n'), "", "name", ["letters"]),
    "experiment is a number": (
        replace("[experiments.parent]", "[experiments]\nx = 5 #!\n[experiments.parent]"),
        "x",
        "",
        ["table"],
    ),
    "experiment is a list of tables": (add("[[experiments.x]] #!\n"), "x", "", ["table"]),
    # groups and references
    "member unknown": (
        replace('members = ["child", "flow"]', 'members = ["child", "flaw"] #!'),
        None,
        "groups.all.members",
        ["did you mean `flow`?"],
    ),
    "member is an alias": (
        replace('members = ["child", "flow"]', 'members = ["kid", "flow"] #!'),
        None,
        "groups.all.members",
        ["child"],
    ),
    "member is abstract": (
        replace('members = ["child", "flow"]', 'members = ["parent", "flow"] #!'),
        None,
        "groups.all.members",
        ["abstract"],
    ),
    "member twice": (
        replace('members = ["child", "flow"]', 'members = ["child", "child"] #!'),
        None,
        "groups.all.members",
        ["twice"],
    ),
    "one member": (
        replace('members = ["child", "flow"]', 'members = ["child"] #!'),
        None,
        "groups.all.members",
        ["2 to 64"],
    ),
    "unknown key may vary": (
        replace('varies = ["world_model.kind"]', 'varies = ["world_model.knd"] #!'),
        None,
        "groups.all.varies",
        ["did you mean `world_model.kind`?"],
    ),
    "member differs": (
        flow('\n[experiments.flow.train]\nreward_scaling = "none" #!'),
        "flow",
        "train.reward_scaling",
        ['"none" here but "running_std" in child'],
    ),
    "group without question": (
        replace('question = "which is better?"\n', "").replace("[groups.all]", "[groups.all] #!"),
        None,
        "groups.all.question",
        ["missing"],
    ),
    "reference without source": (
        replace('source = "its table 1"\n', "").replace("[references.paper]", "[references.paper] #!"),
        None,
        "references.paper.source",
        ["missing"],
    ),
    "reference of unknown kind": (
        replace('kind = "published"', 'kind = "publshed" #!'),
        None,
        "references.paper.kind",
        ["published"],
    ),
    "reference to unknown experiment": (
        add('[references.e]\nkind = "earlier"\nexperiment = "chld" #!\ntitle = "t"\nsource = "s"\n'),
        None,
        "references.e.experiment",
        ["did you mean `child`?"],
    ),
    "unknown curves": (
        replace('curves = "PWM"', 'curves = "PMW" #!'),
        None,
        "references.paper.curves",
        ["did you mean `PWM`?"],
    ),
    # syntax
    "bare word": (replace('kind = "flow"', "kind = flow #!"), None, "", ["not valid TOML", "quotation marks"]),
    "no value": (replace("horizon = 16", "horizon = #!"), None, "", ["not valid TOML"]),
    "no equals sign": (replace("horizon = 16", "horizon 16 #!"), None, "", ["not valid TOML"]),
    "unclosed text": (replace('kind = "flow"', 'kind = "flow #!'), None, "", ["not valid TOML"]),
    "unclosed list": (replace("units = [64, 64]", "units = [64, 64 #!"), None, "", ["not valid TOML"]),
    "unclosed header": (replace("[experiments.child]", "[experiments.child #!"), None, "", ["not valid TOML"]),
    "key twice": (
        replace("max_epochs = 100", "max_epochs = 100\nhorizon = 8 #!"),
        "parent",
        "train.horizon",
        ["first on line 11"],
    ),
    "table twice": (add("[experiments.child] #!\n"), "child", "", ["twice"]),
    "python's True": (replace("abstract = true", "abstract = True #!"), None, "", ["true and false"]),
    "leading zero": (replace("horizon = 16", "horizon = 016 #!"), None, "", ["not valid TOML"]),
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.replace(" ", "-"))
def test_wrong_registry(case, flowmbpo, tmp_path):
    text, experiment, key, words = CASES[case]
    line = next(number for number, content in enumerate(text.splitlines(), 1) if "#!" in content)
    file = tmp_path / "wrong.toml"
    file.write_text(text, encoding="utf-8")

    shown = flowmbpo("validate", file)
    assert shown.code == 2
    assert "Traceback" not in shown.text
    assert f"{file}:{line}:" in shown.text
    assert "\x1b" not in shown.text

    result = flowmbpo("validate", file, "--json")
    assert result.code == 2
    document = result.json()
    assert document["valid"] is False
    culprits = [p for p in document["errors"] if (p["line"], p["experiment"], p["key"]) == (line, experiment, key)]
    assert culprits, document["errors"]
    said = " ".join(f"{p['message']} {p['hint']} {p['value']}" for p in culprits)
    for word in words:
        assert word.strip('"') in said


def test_the_table_is_long_enough_and_its_base_valid(flowmbpo, tmp_path):
    assert len(CASES) >= 60
    file = tmp_path / "right.toml"
    file.write_text(VALID)
    outcome = flowmbpo("validate", file, "--json")
    assert outcome.code == 0
    assert outcome.json() == {"valid": True, "errors": [], "warnings": []}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.replace(" ", "-"))
def test_no_command_runs_a_wrong_registry(case, flowmbpo, tmp_path):
    file = tmp_path / "wrong.toml"
    file.write_text(CASES[case][0], encoding="utf-8")
    for command in (["list"], ["show", "child"]):
        outcome = flowmbpo(*command, "--registry", file)
        assert outcome.code == 2
        assert str(file) in outcome.err
        assert outcome.out == ""
