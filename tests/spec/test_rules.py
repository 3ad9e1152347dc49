"""Every rule can be broken, can be kept, and reads keys that exist."""

import re
from pathlib import Path

import pytest

from flowmbpo.spec import fields, model_rules, rules, training_rules
from flowmbpo.spec.estimates import estimate
from flowmbpo.spec.registry import parse_registry
from flowmbpo.spec.schema import Experiment

FLOW = b"""\
[experiments.a.world_model]
kind = "flow"
units = [64]
encoder_units = [64]
latent_dim = 64
integrator = "heun"
substeps = 2
[experiments.a.train]
max_epochs = 100
"""


def values(**changes):
    spec = parse_registry(FLOW).resolve("a").spec
    return fields.values_with_defaults(Experiment, spec.model_dump()) | {
        key.replace("__", "."): value for key, value in changes.items()
    }


def test_a_valid_experiment_breaks_no_rule():
    assert rules.judge(values()) == []


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.key)
def test_rules_read_keys_that_exist(rule):
    """A rule that asks for a key nobody has would be skipped for ever."""
    rule.judge(values())  # raises Absent otherwise
    for violation in rules.judge(values(train__horizon=1, world_model__latent_dim=9)):
        assert {violation.key, *violation.also} <= set(fields.dotted_keys(Experiment))


@pytest.mark.parametrize("module", [model_rules, training_rules])
def test_rules_name_keys_of_the_schema(module):
    """Also in branches and messages that no experiment of these tests reaches."""
    known = set(fields.dotted_keys(Experiment))
    sections = "|".join({key.partition(".")[0] for key in known if "." in key})
    named = set(re.findall(rf"\b(?:{sections})(?:\.[a-z_]+)+", Path(module.__file__).read_text()))
    assert len(named) > 10
    assert named <= known


@pytest.mark.parametrize(
    ("changes", "key", "severity"),
    [
        ({"train__horizon": 15}, "train.horizon", "error"),
        ({"env__observation_stack": 2}, "env.observation_stack", "error"),
        ({"world_model__latent_dim": 65}, "world_model.latent_dim", "error"),
        ({"world_model__integrator": "euler", "world_model__substeps": 8}, "world_model.substeps", "warning"),
        ({"train__lr_schedule": "constant"}, "train.lr_schedule", "warning"),
        ({"critic__learning_rate": 1e-6}, "critic.learning_rate", "error"),
        ({"world_model__task_dim": 96}, "world_model.task_dim", "error"),
        ({"world_model__multitask": True, "world_model__task_dim": 96}, "world_model.multitask", "error"),
        ({"world_model__encoder": "observation"}, "world_model.latent_dim", "error"),
        ({"world_model__encoder": "observation", "world_model__latent_dim": 37}, "world_model.velocity", "error"),
        ({"world_model__velocity": "shortcut"}, "world_model.integrator", "error"),
        (
            {"world_model__velocity": "shortcut", "world_model__integrator": "euler", "world_model__substeps": 3},
            "world_model.substeps",
            "error",
        ),
        ({"world_model__source": "noise"}, "world_model.loss_states", "error"),
        ({"world_model__kind": "ensemble"}, "world_model.loss_states", "error"),
        ({"world_model__kind": "gaussian", "world_model__loss_states": "encoded"}, "world_model.encoder", "error"),
        ({"world_model__source": "noise", "world_model__velocity": "linear"}, "world_model.velocity", "error"),
        (
            {"world_model__source": "noise", "world_model__tau_sampling": "midpoint"},
            "world_model.tau_sampling",
            "error",
        ),
        ({"world_model__source": "noise", "world_model__objective": "both"}, "world_model.objective", "error"),
        ({"world_model__loss_states": "encoded"}, "world_model.loss_states", "warning"),
        ({"actor__log_std_init": -2.0}, "actor.log_std_init", "error"),
        ({"actor__updates": 2}, "actor.updates", "error"),
        ({"train__imagination": "from_visited", "actor__recent_steps": 10_000}, "actor.recent_steps", "error"),
        ({"world_model__encoder_units": ()}, "world_model.encoder_units", "error"),
        ({"world_model__encoder": "observation"}, "world_model.encoder_units", "error"),
        ({"env__episode_length": 15}, "env.episode_length", "error"),
        ({"train__wm_sequence_length": 17}, "train.wm_sequence_length", "error"),
        ({"train__replay_capacity": 17_407}, "train.replay_capacity", "error"),
        ({"train__num_envs": 1}, "train.wm_batch_size", "error"),
        ({"train__warmup_epochs": 101}, "train.warmup_epochs", "error"),
        ({"train__wm_first_epoch": 101}, "train.wm_first_epoch", "warning"),
        ({"critic__minibatches": 2049}, "critic.minibatches", "error"),
        ({"critic__states": "predicted", "critic__targets": "imagined"}, "critic.states", "error"),
        ({"expected__hours": (4.0, 3.0)}, "expected.hours", "error"),
        ({"actor__symmetric": True}, "world_model.encoder", "error"),
        ({"actor__symmetric": True, "env__kind": "pointmass"}, "env.kind", "error"),
        ({"actor__symmetric": True, "env__hidden_velocities": True}, "env.hidden_velocities", "error"),
        ({"actor__symmetric": True, "env__observation_stack": 2}, "env.observation_stack", "error"),
        ({"train__starts": 5, "train__start_epochs": 20}, "train.starts", "error"),
        ({"train__starts": 2, "train__start_epochs": 20, "train__warmup_epochs": 21}, "train.warmup_epochs", "error"),
        ({"train__starts": 2, "train__start_epochs": 20, "train__wm_first_epoch": 21}, "train.wm_first_epoch", "error"),
        ({"train__starts": 2, "train__pretrain": {"data": "f", "updates": 1}}, "train.pretrain", "error"),
        ({"train__start_epochs": 20}, "train.start_epochs", "warning"),
    ],
)
def test_a_broken_rule(changes, key, severity):
    assert (key, severity) in [(violation.key, violation.severity) for violation in rules.judge(values(**changes))]


@pytest.mark.parametrize(
    "changes",
    [
        {"train__horizon": 8, "train__allow_short_horizon": True},
        {"world_model__integrator": "euler", "world_model__substeps": 7},
        {"train__replay_capacity": 17_408},
        {"train__wm_sequence_length": 17, "train__warmup_epochs": 2},
        {
            "world_model__encoder": "observation",
            "world_model__latent_dim": 37,
            "world_model__velocity": "linear",
            "world_model__encoder_units": (),
        },
        {"train__lr_schedule": "linear", "train__wm_learning_rate": 1e-5},
        {"train__starts": 4, "train__start_epochs": 24, "train__warmup_epochs": 24},
    ],
)
def test_the_allowed_side_of_a_rule(changes):
    assert rules.judge(values(**changes)) == []


def test_a_rule_without_its_keys_is_skipped():
    known = values(train__horizon=8, world_model__latent_dim=65)
    del known["world_model.latent_dim"]
    assert [violation.key for violation in rules.judge(known)] == ["train.horizon"]


def test_estimates_by_hand():
    """1,000,000 transitions of 37 + 8 + 1 float32 and two flags; a Heun step has two evaluations per substep."""
    spec = parse_registry(FLOW).resolve("a").spec
    cost = estimate(spec)
    assert cost.replay_gb == pytest.approx(0.186)
    assert cost.env_steps == 128 * 16
    # 4 evaluations in imagination, and 1 more for the matching loss, which needs no state after the last step
    assert cost.dynamics_evaluations == 4 * 128 * 16 + 8 * 1024 * (5 * 16 - 4)
    dynamics = 2 * ((64 + 8 + 1) * 64 + 64 * 64)
    reward = 2 * ((64 + 8) * 64 + 64)
    encoder = 2 * (37 * 64 + 64 * 64)
    update = 1024 * 16 * (3 * ((5 - 4 / 16) * dynamics + reward) + encoder) + 1024 * 3 * encoder
    assert cost.world_model_gflop == pytest.approx(8 * update / 1e9)


def test_estimates_grow_with_what_costs():
    registry = parse_registry(FLOW)
    small = estimate(registry.resolve("a").spec)
    more = estimate(registry.resolve("a", ["world_model.substeps=4"]).spec)
    assert more.activations_gb > 1.5 * small.activations_gb
    assert more.world_model_gflop > 1.5 * small.world_model_gflop
    assert estimate(registry.resolve("a", ["train.precision=bfloat16"]).spec).activations_gb < small.activations_gb
    on_cpu = estimate(registry.resolve("a", ["resources.gpus=0"]).spec)
    assert on_cpu.device_gb == 0
    assert on_cpu.host_gb > small.host_gb


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("env.kind", "pointmass", "only the Ant's simulator has gradients"),
        ("train.pretrain", {"data": "x"}, "must be absent .* nothing to learn"),
        ("env.payload", 5.0, "must be 0.0 .* not the whole state"),
        ("env.hidden_velocities", True, "must be false .* not the whole state"),
    ],
)
def test_the_simulator_as_model_needs_the_undisturbed_ant(key, value, message):
    oracle = values(world_model__kind="simulator")
    assert not [v for v in rules.judge(oracle) if "simulator" in v.message]
    assert re.search(message, " ".join(v.message for v in rules.judge(oracle | {key: value})))
