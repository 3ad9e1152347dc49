"""Digests, flat keys and differences."""

from flowmbpo.spec.identity import diff, flatten, identity, run_name, spec_hash
from flowmbpo.spec.registry import parse_registry
from flowmbpo.spec.schema import Experiment

BODY = """\
[experiments.a]
description = "one"
run_group = "g"
[experiments.a.world_model]
kind = "mlp"
units = [64, 32]
encoder_units = [64]
latent_dim = 64
[experiments.a.train]
max_epochs = 100
gamma = 0.5
"""


def spec_of(text: str) -> Experiment:
    return parse_registry(text.encode()).resolve("a").spec


def test_order_and_spelling_of_keys_do_not_matter():
    other = """\
[experiments.a]
train = { gamma = 5e-1, max_epochs = 1_00 }
world_model.latent_dim = 64
world_model.encoder_units = [64]
world_model.units = [64, 32]
world_model.kind = "mlp"
world_model.simnorm_dim = 8
"""
    assert spec_hash(spec_of(BODY)) == spec_hash(spec_of(other))


def test_labels_and_resources_are_no_part_of_the_identity():
    changed = BODY.replace('"one"', '"two"').replace('"g"', '"h"') + (
        "[experiments.a.resources]\ncpus = 8\n[experiments.a.expected]\npeak_reward = [1, 2]\n"
    )
    changed = changed.replace("[experiments.a]\n", '[experiments.a]\naliases = ["b"]\n', 1)
    assert spec_hash(spec_of(changed)) == spec_hash(spec_of(BODY))


def test_every_value_of_the_identity_changes_the_hash():
    spec = spec_of(BODY)
    assert spec_hash(spec_of(BODY.replace("0.5", "0.6"))) != spec_hash(spec)
    assert spec_hash(spec_of(BODY.replace("[64, 32]", "[32, 64]"))) != spec_hash(spec)
    assert len(spec_hash(spec)) == 16


def test_a_spec_survives_json():
    spec = spec_of(BODY)
    assert Experiment.model_validate_json(spec.model_dump_json()) == spec
    assert Experiment.model_validate(spec.model_dump(mode="json")) == spec


def test_flat_keys():
    flat = flatten(spec_of(BODY))
    assert flat["world_model.units"] == (64, 32)
    assert flat["train.gamma"] == 0.5
    assert flat["env.kind"] == "ant"
    assert set(identity(spec_of(BODY))) < set(flat)
    assert not any(key.startswith(("expected", "resources", "name")) for key in identity(spec_of(BODY)))


def test_difference_names_keys_of_either_side():
    flow = BODY.replace('"mlp"', '"flow"\nintegrator = "heun"\nsubsteps = 2')
    found = diff(spec_of(BODY), spec_of(flow))
    assert found["world_model.kind"] == ("mlp", "flow")
    assert found["world_model.substeps"] == (None, 2)
    assert "world_model.units" not in found
    assert diff(spec_of(BODY), spec_of(BODY)) == {}


def test_run_name():
    assert run_name("48M-flow-v2", 3) == "48M-flow-v2/seed-3"
