"""Loading, inheritance, origins, overrides, and that all mistakes come at once."""

from pathlib import Path

import pytest

import flowmbpo
from flowmbpo.spec import registry as registry_module
from flowmbpo.spec.problems import RegistryError
from flowmbpo.spec.registry import UnknownExperiment, load_registry, parse_registry

REPOSITORY = Path(__file__).resolve().parents[2]

FAMILY = b"""\
[experiments.base]
abstract = true
description = "not inherited"
[experiments.base.world_model]
kind = "mlp"
units = [64, 64]
encoder_units = [64]
latent_dim = 64
[experiments.base.train]
max_epochs = 100
num_envs = 32

[experiments.plain]
extends = "base"
aliases = ["p"]
train.num_envs = 64

[experiments.grandchild]
extends = "plain"
[experiments.grandchild.world_model]
units = [
    32,
    32,
]

[experiments.flow]
extends = "plain"
world_model = { kind = "flow", units = [8], encoder_units = [8], latent_dim = 8, integrator = "heun", substeps = 2 }
"""


@pytest.fixture
def family():
    return parse_registry(FAMILY, Path("family.toml"))


def test_names_leave_out_abstract_entries_and_keep_the_order_of_the_file(family):
    assert family.names() == ["plain", "grandchild", "flow"]
    assert family.aliases == {"p": "plain"}


def test_sections_merge_key_by_key(family):
    spec = family.resolve("grandchild").spec
    assert spec.train.max_epochs == 100  # from base
    assert spec.train.num_envs == 64  # from plain
    assert spec.world_model.units == (32, 32)  # its own
    assert spec.world_model.encoder_units == (64,)  # from base
    assert spec.train.horizon == 16  # default


def test_another_kind_replaces_the_section(family):
    model = family.resolve("flow").spec.world_model
    assert model.kind == "flow"
    assert model.units == (8,)
    assert model.latent_dim == 8


def test_who_an_entry_is_is_not_inherited(family):
    spec = family.resolve("grandchild").spec
    assert spec.name == "grandchild"
    assert spec.aliases == ()
    assert spec.description == ""


def test_the_same_kind_merges():
    text = FAMILY + b'\n[experiments.flow2]\nextends = "flow"\nworld_model = { kind = "flow", substeps = 4 }\n'
    model = parse_registry(text).resolve("flow2").spec.world_model
    assert (model.integrator, model.substeps, model.units) == ("heun", 4, (8,))


def test_origins_point_to_where_a_value_was_written(family):
    origins = family.resolve("grandchild").origins
    found = {key: (origins[key].entry, origins[key].file, origins[key].line) for key in origins}
    assert found["train.max_epochs"] == ("base", "family.toml", 10)
    assert found["train.num_envs"] == ("plain", "family.toml", 16)
    assert found["world_model.units"] == ("grandchild", "family.toml", 21)
    assert found["train.horizon"] == (None, None, None)
    assert str(origins["train.horizon"]) == "default"
    assert str(origins["train.num_envs"]) == "plain, line 16"


def test_every_value_has_an_origin_and_every_shipped_line_holds_its_key():
    registry = load_registry(REPOSITORY / "experiments.toml")
    lines = (REPOSITORY / "experiments.toml").read_text().splitlines()
    for name in registry.names():
        resolved = registry.resolve(name)
        for key, origin in resolved.origins.items():
            if origin.line is not None and key != "name":
                assert key.rsplit(".", 1)[-1] in lines[origin.line - 1]


def test_overrides_as_options_and_as_a_mapping(family):
    by_option = family.resolve("p", ["train.num_envs=128", "world_model.units=[16, 16]", "train.lr_schedule=constant"])
    by_mapping = family.resolve(
        "plain", {"train.num_envs": 128, "world_model.units": [16, 16], "train.lr_schedule": "constant"}
    )
    assert by_option.spec == by_mapping.spec
    assert by_option.spec.train.num_envs == 128
    assert str(by_option.origins["train.num_envs"]) == "--set"
    assert [warning.key for warning in by_option.warnings] == ["train.lr_schedule"]


def test_an_override_may_switch_the_kind_with_all_that_belongs_to_it(family):
    options = [
        "world_model.kind=flow", "world_model.units=[8]", "world_model.encoder_units=[8]", "world_model.latent_dim=8",
        "world_model.integrator=euler", "world_model.substeps=2",
    ]  # fmt: skip
    assert family.resolve("plain", options).spec.world_model.integrator == "euler"
    with pytest.raises(RegistryError) as caught:
        family.resolve("plain", options[:1])
    assert {p.key for p in caught.value.problems} >= {"world_model.integrator", "world_model.units"}


def test_a_short_horizon_needs_to_be_meant(family):
    with pytest.raises(RegistryError, match=r"--set train.horizon=8.*at least 16"):
        family.resolve("plain", ["train.horizon=8"])
    spec = family.resolve("plain", ["train.horizon=8", "train.allow_short_horizon=true"]).spec
    assert spec.train.horizon == 8


def test_a_rule_blames_the_option_that_broke_it(family):
    with pytest.raises(RegistryError) as caught:
        family.resolve("plain", ["train.num_envs=1"])
    (problem,) = caught.value.problems
    assert (problem.place.file, problem.key) == ("--set", "train.num_envs")


def test_a_size_is_blamed_before_the_kind_of_model():
    with pytest.raises(RegistryError) as caught:
        parse_registry(FAMILY + b"train.num_envs = 100_000\n")
    assert [problem.key for problem in caught.value.problems] == ["train.num_envs"]


def test_an_inherited_mistake_is_shown_once_where_it_was_written():
    text = FAMILY.replace(b"max_epochs = 100", b"max_epochs = 100\nhorizon = 4")
    with pytest.raises(RegistryError) as caught:
        parse_registry(text)
    (problem,) = caught.value.problems
    assert problem.place.line == 11
    assert problem.place.source == "horizon = 4"
    assert problem.experiment == "plain"
    assert "inherited from base" in problem.hint
    assert "it also reaches grandchild, flow" in problem.hint


def test_a_child_may_put_right_what_its_abstract_parent_leaves_wrong():
    text = FAMILY.replace(b"max_epochs = 100", b"max_epochs = 100\nhorizon = 4")
    text = text.replace(b"train.num_envs = 64", b"train.num_envs = 64\ntrain.horizon = 16")
    assert parse_registry(text).resolve("plain").spec.train.horizon == 16


def test_all_mistakes_come_at_once():
    text = b"""\
[experiments.a.world_model]
kind = "flow"
units = [64]
encoder_units = "64"
latent_dim = 60
integrator = "huen"
substeps = 0
[experiments.a.train]
horizon = 4
max_epocs = 10
gamma = 2.0
[experiments.b]
extends = "c"
colour = "red"
[groups.g]
question = "?"
members = ["a", "x"]
varies = []
"""
    with pytest.raises(RegistryError) as caught:
        parse_registry(text)
    found = [(p.place.line, p.key) for p in caught.value.problems]
    assert found == [
        (4, "world_model.encoder_units"),
        (5, "world_model.latent_dim"),
        (6, "world_model.integrator"),
        (7, "world_model.substeps"),
        (9, "train.horizon"),
        (10, "train.max_epocs"),
        (11, "train.gamma"),
        (13, "extends"),
        (14, "colour"),
        (17, "groups.g.members"),
    ]


def test_mistakes_of_syntax_do_not_hide_the_others():
    text = FAMILY.replace(b"max_epochs = 100", b"max_epochs = \nhorizn = 16\ngamma = 2.0")
    with pytest.raises(RegistryError) as caught:
        parse_registry(text)
    found = [(p.place.line, p.key) for p in caught.value.problems]
    assert found == [(10, ""), (11, "train.horizn"), (12, "train.gamma")]  # and max_epochs is not called missing


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("plan", "Did you mean `plain`"),
        ("FLOW", "Did you mean `flow`"),
        ("base", "abstract"),
        ("", "unknown experiment"),
        ("\x1b[31m", "unknown experiment"),
    ],
)
def test_unknown_names_are_explained(family, name, said):
    with pytest.raises(UnknownExperiment) as caught:
        family.resolve(name)
    assert said in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_where_the_registry_is_found(tmp_path, monkeypatch):
    local = tmp_path / "work" / "experiments.toml"
    local.parent.mkdir()
    package = tmp_path / "site" / "flowmbpo"
    package.mkdir(parents=True)
    monkeypatch.setattr(flowmbpo, "__file__", str(package / "__init__.py"))
    monkeypatch.chdir(local.parent)
    find = registry_module.find_registry
    assert find(Path("given.toml")) == Path("given.toml")
    assert find() == package.parent / "experiments.toml"  # a checkout: beside the package
    (package / "experiments.toml").write_bytes(FAMILY)
    assert find() == package / "experiments.toml"  # an installed wheel: inside the package
    assert load_registry().names() == ["plain", "grandchild", "flow"]
    local.write_bytes(FAMILY)
    assert find() == Path("experiments.toml")


def test_groups_of_an_experiment():
    registry = load_registry(REPOSITORY / "experiments.toml")
    assert list(registry.groups_of("48M-flow-v2")) == ["flow-48M", "substeps-48M"]


def test_the_simulator_as_model_has_no_encoder():
    registry = load_registry(REPOSITORY / "experiments.toml")
    with pytest.raises(RegistryError, match=r'only known where world_model\.kind is "mlp" or "flow" or'):
        registry.resolve("mini-oracle", ["world_model.encoder=mlp"])
