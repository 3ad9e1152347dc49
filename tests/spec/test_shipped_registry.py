"""The shipped registry says what the design table of the experiment plan says, value by value."""

from pathlib import Path

import pytest

from flowmbpo.spec.parameters import count_parameters
from flowmbpo.spec.references import EarlierReference, PublishedReference, curves
from flowmbpo.spec.registry import load_registry

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def registry():
    return load_registry(REPOSITORY / "experiments.toml")


# name: kind, family, units, encoder, latent, substeps, integrator, epochs, run group
PLAN = {
    "5M-baseline": ("mlp", "5M", (512,) * 2, (256,), 512, None, None, 15_000, "5M_baseline_l40s_fixed"),
    "48M-baseline": ("mlp", "48M", (1792,) * 2, (1792,) * 3, 768, None, None, 15_000, "48M_baseline_single_task"),
    "48M-flow-v1": ("flow", "48M", (1792,) * 2, (1792,) * 3, 768, 2, "heun", 20_000, "48M_flow_single_task"),
    "48M-flow-v2": ("flow", "48M", (1792,) * 2, (1792,) * 3, 768, 4, "heun", 20_000, "48M_flow_single_task"),
    "48M-flow-v3": ("flow", "48M", (1792,) * 2, (1792,) * 3, 768, 8, "euler", 20_000, "48M_flow_single_task"),
    "5M-flow-v1": ("flow", "5M", (512,) * 2, (256,), 512, 2, "heun", 20_000, "5M_flow_single_task"),
    "5M-flow-v2": ("flow", "5M", (512,) * 2, (256,), 512, 4, "heun", 20_000, "5M_flow_single_task"),
    "5M-flow-v3": ("flow", "5M", (512,) * 2, (256,), 512, 8, "euler", 20_000, "5M_flow_single_task"),
}


@pytest.mark.parametrize("name", PLAN)
def test_design_table(registry, name):
    spec = registry.resolve(name).spec
    model, train = spec.world_model, spec.train
    assert PLAN[name] == (
        model.kind,
        spec.family,
        model.units,
        model.encoder_units,
        model.latent_dim,
        getattr(model, "substeps", None),
        getattr(model, "integrator", None),
        train.max_epochs,
        spec.run_group,
    )
    assert (train.wm_batch_size, train.horizon, train.lr_schedule, train.num_envs) == (1024, 16, "linear", 128)
    assert (model.task_dim, model.multitask) == (0, False)
    assert getattr(model, "tau_sampling", "uniform") == "uniform"
    resources = spec.resources
    assert (resources.gpu, resources.gpus, resources.gpu_memory_gb) == ("L40S", 1, 48)
    assert (resources.cpus, resources.memory_gb, resources.time_limit) == (4, 128, "12:00:00")


def test_the_published_recipe_stays_runnable(registry):
    spec = registry.resolve("5M-published").spec
    train = spec.train
    assert (train.gamma, train.td_lambda, train.adam_betas) == (0.99, 0.95, (0.7, 0.95))
    assert train.wm_adam_betas == (0.9, 0.999)  # the published code passes none for the world model
    assert (spec.actor.learning_rate, spec.critic.learning_rate, train.wm_learning_rate) == (5e-4, 5e-4, 3e-4)
    assert train.final_learning_rate == 1e-5
    assert train.regression == "centered"
    assert (spec.actor.grad_norm, spec.critic.grad_norm, train.wm_grad_norm) == (1, 100, 20)
    assert (spec.critic.passes, spec.critic.minibatches, spec.critic.ensemble) == (8, 4, 3)
    assert (train.wm_updates, train.wm_first_updates, train.replay_capacity) == (8, 1000, 1_000_000)
    assert (spec.actor.units, spec.critic.units) == ((400, 200, 100), (400, 200))
    assert (train.imagination, spec.critic.targets, spec.actor.updates) == ("alongside", "imagined", 1)
    model = spec.world_model
    assert (model.step, model.latent_input, model.decoder_units, model.continuation_units) == (
        "absolute",
        "raw",
        (),
        (),
    )
    assert (train.wm_batch_size, train.horizon, train.sequence_length, train.num_envs) == (1024, 16, 16, 128)


@pytest.mark.parametrize("name", PLAN)
def test_the_plan_uses_the_recipe_that_learns(registry, name):
    """Neither the decoder nor the step that starts near the identity walks alone; training is as long as use."""
    spec = registry.resolve(name).spec
    model, train = spec.world_model, spec.train
    assert (model.step, model.latent_input) == ("logit_residual", "standardized")
    assert model.decoder_units
    assert model.continuation_units
    assert (train.imagination, spec.critic.targets) == ("from_visited", "real")
    assert train.sequence_length >= train.horizon == 16
    assert train.wm_adam_betas == (0.9, 0.999)
    assert train.regression == "centered"
    assert (spec.actor.units, spec.critic.units, spec.critic.ensemble) == ((400, 200, 100), (400, 200), 3)
    if model.kind == "flow":
        assert model.objective == "both"  # the matching loss alone learns more slowly than the MLP


# What may differ between an entry of the `latent` family and that of the plan: sizes, how many of everything, and what
# was measured to walk more often.
SCALED_DOWN = {
    "actor": {"average_decay", "units", "updates"},
    "critic": {"minibatches", "units"},
    "evaluation": {"interval"},
    "train": {
        "checkpoint_interval",
        "max_epochs",
        "num_envs",
        "regression",
        "replay_capacity",
        "warmup_epochs",
        "wm_batch_size",
        "wm_sequence_length",
        "wm_updates",
    },
    "world_model": {"latent_dim", "reward_units", "units"},
}


@pytest.mark.parametrize("role", ["baseline", "flow-v1", "flow-v2", "flow-v3"])
def test_a_latent_entry_is_the_plans_but_smaller(registry, role):
    small, planned = (registry.resolve(f"{family}-{role}").spec.model_dump() for family in ("latent", "5M"))
    for section in ("env", "world_model", "actor", "critic", "train", "evaluation"):
        differing = {key for key in small[section] if small[section][key] != planned[section][key]}
        assert differing <= SCALED_DOWN.get(section, set()), section


@pytest.mark.parametrize(
    ("name", "peak", "stability", "hours", "confidence"),
    [
        ("5M-baseline", (1200, 1200), "high", (3, 4), "high"),
        ("48M-baseline", None, "medium", (5, 8), "medium"),
        ("48M-flow-v1", (1000, 1200), "high", (6, 9), "medium"),
        ("48M-flow-v2", (1200, 1400), "high", (6, 10), "high"),
        ("48M-flow-v3", (1100, 1300), "low", (7, 11), "low"),
        ("5M-flow-v1", None, None, None, None),
    ],
)
def test_expectations(registry, name, peak, stability, hours, confidence):
    expected = registry.resolve(name).spec.expected
    assert (expected.peak_reward, expected.stability, expected.hours, expected.confidence) == (
        peak,
        stability,
        hours,
        confidence,
    )


def test_alias(registry):
    assert registry.resolve("flow-v2").spec.name == "48M-flow-v2"


HEADS_5M, HEADS_48M = (141_349, 67_073), (206_885, 99_841)  # z of 512 and 768 -> 256 -> 37; z and a -> 128 -> 1
# encoder, dynamics, reward, world model (the three), decoder, continuation, actor, critics
COUNTS = {
    "5M-published": (142_848, 795_136, 531_969, 1_469_953, 0, 0, 307_716, 860_403),
    "5M-baseline": (142_848, 794_112, 531_969, 1_468_929, *HEADS_5M, 307_716, 860_403),
    "48M-baseline": (7_883_520, 5_989_632, 4_614_401, 18_487_553, *HEADS_48M, 410_116, 1_167_603),
    **{f"5M-flow-v{k}": (142_848, 794_624, 531_969, 1_469_441, *HEADS_5M, 307_716, 860_403) for k in (1, 2, 3)},
    **{
        f"48M-flow-v{k}": (7_883_520, 5_991_424, 4_614_401, 18_489_345, *HEADS_48M, 410_116, 1_167_603)
        for k in (1, 2, 3)
    },
}


@pytest.mark.parametrize("name", COUNTS)
def test_exact_parameter_counts(registry, name):
    counts = count_parameters(registry.resolve(name).spec)
    assert COUNTS[name] == (
        counts.encoder,
        counts.dynamics,
        counts.reward,
        counts.world_model,
        counts.decoder,
        counts.continuation,
        counts.actor,
        counts.critics,
    )


@pytest.mark.parametrize(("family", "dynamics", "flow"), [("5M", 795_136, 795_648), ("48M", 5_991_168, 5_992_960)])
def test_exact_parameter_counts_of_the_published_dynamics(registry, family, dynamics, flow):
    """A flow's network has one more input, the time."""
    counts = {
        role: count_parameters(registry.resolve(f"{family}-{role}", ["world_model.step=absolute"]).spec).dynamics
        for role in ("baseline", "flow-v1", "flow-v2", "flow-v3")
    }
    assert counts == {"baseline": dynamics, "flow-v1": flow, "flow-v2": flow, "flow-v3": flow}


@pytest.mark.parametrize(("name", "reward"), [("5M-baseline", 583_269), ("48M-baseline", 4_793_701)])
def test_exact_parameter_counts_of_the_two_hot_head(registry, name, reward):
    assert count_parameters(registry.resolve(name, ["world_model.reward_head=two_hot"]).spec).reward == reward


def test_the_questions_of_the_plan_are_groups(registry):
    members = {name: set(group.members) for name, group in registry.groups.items()}
    assert members["size"] == {"5M-baseline", "48M-baseline"}
    assert members["flow-48M"] == {"48M-baseline", "48M-flow-v1", "48M-flow-v2", "48M-flow-v3"}
    assert members["substeps-48M"] == {"48M-flow-v1", "48M-flow-v2", "48M-flow-v3"}
    assert members["mini"] >= {"mini-baseline", "mini-flow-v1", "mini-flow-v2", "mini-flow-v3"}


def test_the_mini_family_mirrors_the_plan(registry):
    for version in ("v1", "v2", "v3"):
        mini = registry.resolve(f"mini-flow-{version}").spec.world_model
        full = registry.resolve(f"48M-flow-{version}").spec.world_model
        assert (mini.integrator, mini.substeps) == (full.integrator, full.substeps)


def test_euler_with_eight_substeps_warns_with_the_reason(registry):
    warned = {problem.experiment for problem in registry.warnings}
    assert {"48M-flow-v3", "5M-flow-v3"} <= warned
    assert all("1,137" in p.message and "978" in p.message for p in registry.warnings if "Euler" in p.message)


def test_published_results(registry):
    published = {k: r for k, r in registry.references.items() if isinstance(r, PublishedReference)}
    assert len(published) == 9
    pwm = published["PWM"]
    assert (pwm.final_reward, pwm.final_range, pwm.seeds) == (9546, (8210, 10629), 5)
    assert published["SHAC"].final_reward == 7645
    assert published["TD-MPC2"].final_reward == 6413
    assert published["PPO"].final_reward == 6605
    assert published["PWM-128envs-by-time"].seconds_to_5000 == (2143, 2963)


@pytest.mark.parametrize(
    ("name", "seeds"),
    [("PWM", 5), ("PWM-128envs-by-time", 3), ("SHAC", 10), ("AHAC", 10), ("SHAC-horizon-29", 10), ("TD-MPC2", 5)],
)
def test_published_curves_are_shipped(registry, name, seeds):
    found = curves(registry.references[name])
    assert [curve.seed for curve in found] == list(range(seeds))
    assert all(len(curve.x) == len(curve.reward) == 150 for curve in found)
    assert all(list(curve.x) == sorted(curve.x) for curve in found)


def test_what_the_earlier_program_reached(registry):
    earlier = {k: r for k, r in registry.references.items() if isinstance(r, EarlierReference)}
    found = {(r.experiment, r.peak_reward, r.last100_reward, r.last10_reward) for r in earlier.values()}
    assert found == {
        ("5M-baseline", 292, None, None),
        ("5M-baseline", 1222, 30, None),
        ("48M-baseline", 1254, 25, None),
        ("48M-flow-v1", 1100, 24, None),
        ("48M-flow-v2", 1210, 17, None),
        ("48M-flow-v3", 1182, 57, None),
        ("5M-flow-v1", 1133, None, 1132),
        ("5M-flow-v2", 1197, None, 1165),
        ("5M-flow-v3", 1137, None, 979),
    }
