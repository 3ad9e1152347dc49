"""A comparison group refuses every difference that it does not declare."""

import pytest

from flowmbpo.spec.problems import RegistryError
from flowmbpo.spec.registry import parse_registry

BASE = """\
[experiments.mlp.world_model]
kind = "mlp"
units = [64]
encoder_units = [64]
latent_dim = 64
[experiments.mlp.train]
max_epochs = 100
[experiments.flow]
extends = "mlp"
[experiments.flow.world_model]
kind = "flow"
units = [64]
encoder_units = [64]
latent_dim = 64
integrator = "heun"
substeps = 2
[experiments.flow4]
extends = "flow"
world_model.substeps = 4
[groups.g]
question = "?"
members = ["mlp", "flow", "flow4"]
"""


def problems(text: str) -> list[tuple[str | None, str, int]]:
    try:
        parse_registry(text.encode())
    except RegistryError as error:
        return [(p.experiment, p.key, p.place.line) for p in error.problems]
    return []


def test_declared_differences_are_fine():
    assert problems(BASE + 'varies = ["world_model.kind", "world_model.substeps"]\n') == []
    assert problems(BASE + 'varies = ["world_model"]\n') == []


def test_keys_that_come_with_a_kind_must_agree_among_those_that_have_them():
    assert problems(BASE + 'varies = ["world_model.kind"]\n') == [("flow4", "world_model.substeps", 19)]


def test_without_the_kind_nothing_that_comes_with_it_may_vary():
    keys = {key for _, key, _ in problems(BASE + 'varies = ["world_model.substeps"]\n')}
    assert {"world_model.kind", "world_model.integrator", "world_model.velocity"} <= keys


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('train.reward_scaling = "none"', "train.reward_scaling"),
        ("critic.passes = 2", "critic.passes"),
        ("train.max_epochs = 200", "train.max_epochs"),
        ("env.episode_length = 500", "env.episode_length"),
    ],
)
def test_a_silent_difference_is_an_error_with_both_values(line, key):
    text = BASE.replace("world_model.substeps = 4", f"world_model.substeps = 4\n{line}")
    text += 'varies = ["world_model.kind", "world_model.substeps"]\n'
    with pytest.raises(RegistryError) as caught:
        parse_registry(text.encode())
    (problem,) = caught.value.problems
    assert (problem.experiment, problem.key, problem.place.line) == ("flow4", key, 20)
    value = line.split(" = ")[1]
    assert value in problem.message
    assert "in mlp" in problem.message
    assert f'add "{key}" to groups.g.varies' in problem.hint


def test_labels_and_resources_may_always_differ():
    text = BASE.replace("world_model.substeps = 4", 'world_model.substeps = 4\nrun_group = "x"\nresources.cpus = 2')
    assert problems(text + 'varies = ["world_model.kind", "world_model.substeps"]\n') == []
