"""Rules about the environment and the world model."""

from __future__ import annotations

from collections.abc import Iterator

from flowmbpo.spec.rule import Rule, Values, Violation, requirements, sequence_length
from flowmbpo.spec.schema import ENV_EXTENSIONS, AntEnvSpec, PointMassEnvSpec

UNSTABLE_EULER_SUBSTEPS = 8
DISTURBANCES = ("torque_noise", "payload", "action_delay", "observation_noise", "hidden_velocities")
REQUIREMENTS = requirements(
    {
        ("world_model.encoder", "observation"): {
            "world_model.step": ("absolute", "an observation lies on no simplex, and its change is predicted anyway"),
            "world_model.latent_input": ("raw", "observations are standardised by train.normalize_observations"),
            "world_model.decoder_units": ((), "there is nothing to reconstruct"),
            "world_model.encoder_units": ((), "there is no encoder network"),
        },
        ("world_model.velocity", "linear"): {
            "world_model.step": ("absolute", "only an end point lies on the simplices"),
        },
        ("world_model.velocity", "shortcut"): {
            "world_model.objective": ("matching", "its second loss makes long steps agree"),
            "world_model.integrator": ("euler", "its steps are already corrected for their length"),
            "world_model.substeps": (1, 2, 4, "other lengths of step are not trained"),
        },
        ("world_model.source", "noise"): {
            "world_model.velocity": ("endpoint", "shortcut", "the velocity follows from the predicted end point"),
            "world_model.tau_sampling": ("uniform", "early", "a path from noise is integrated through every tau"),
            "world_model.objective": ("matching", "the integrated prediction of one noise is no estimate of the mean"),
        },
        ("world_model.kind", "gaussian"): {
            "world_model.encoder": ("observation", "Gaussian noise leaves the simplices of a learned latent"),
        },
    }
)
NO_EFFECT = requirements(
    {("world_model.objective", "prediction"): {"world_model.tau_sampling": ("uniform", "no tau is sampled")}}, "warning"
)


def _observation_dim(v: Values) -> int:
    kind = v["env.kind"]
    if kind == "pointmass":
        return PointMassEnvSpec.observation_dim
    if kind in ENV_EXTENSIONS:
        section = ENV_EXTENSIONS[kind]
        return section(**{key: v[f"env.{key}"] for key in section.model_fields}).observation_dim
    keys = ("hidden_velocities", "observation_stack")
    return AntEnvSpec(**{key: v[f"env.{key}"] for key in keys}).observation_dim


def _observation_stack(v: Values) -> Iterator[Violation]:
    if v["env.observation_stack"] > 1 and not any(v[f"env.{key}"] for key in DISTURBANCES):
        yield Violation(
            "env.observation_stack",
            "must be 1 where nothing disturbs the Ant: one observation is then its whole state, older ones add nothing",
            f"use 1, or one of env.{', env.'.join(DISTURBANCES)}",
        )


def _simulator(v: Values) -> Iterator[Violation]:
    if v["world_model.kind"] != "simulator":
        return
    if v["env.kind"] != "ant":
        yield Violation(
            "world_model.kind",
            f'must not be "simulator" where env.kind = "{v["env.kind"]}": only the Ant\'s simulator has gradients',
            'use env.kind = "ant", or a model that learns: "mlp" or "flow"',
            also=("env.kind",),
        )
        return
    if v["train.pretrain"] is not None:
        yield Violation(
            "train.pretrain",
            'must be absent where world_model.kind = "simulator": the simulator has nothing to learn',
            "remove the key",
            also=("world_model.kind",),
        )
    usual = AntEnvSpec()
    for key in DISTURBANCES:
        if v[f"env.{key}"] != getattr(usual, key):
            yield Violation(
                f"env.{key}",
                f'must be {str(getattr(usual, key)).lower()} where world_model.kind = "simulator": an observation is '
                "then not the whole state, and what follows from it is not certain",
                "remove the key, or use a model that learns",
                also=("world_model.kind",),
            )


def _latent(v: Values) -> Iterator[Violation]:
    latent = v["world_model.latent_dim"]
    if v["world_model.encoder"] == "observation":
        observation = _observation_dim(v)
        if latent != observation:
            yield Violation(
                "world_model.latent_dim",
                f'must be {observation}, the width of an observation, where world_model.encoder = "observation"',
                f"use {observation}",
                also=("world_model.encoder", "env.kind"),
            )
        return
    group = v["world_model.simnorm_dim"]
    if latent % group:
        lower, upper = latent - latent % group, latent + group - latent % group
        near = f"{lower} or {upper}" if lower else str(upper)
        yield Violation(
            "world_model.latent_dim",
            f"must be divisible by world_model.simnorm_dim = {group} (features per group of SimNorm)",
            f"the nearest are {near}",
            also=("world_model.simnorm_dim",),
        )


def _encoder_units(v: Values) -> Iterator[Violation]:
    if v["world_model.encoder"] == "mlp" and not v["world_model.encoder_units"]:
        yield Violation(
            "world_model.encoder_units",
            'must name at least one hidden width where world_model.encoder = "mlp"',
            "write, for instance, encoder_units = [256]",
            also=("world_model.encoder",),
        )


def _trained_as_long_as_used(v: Values) -> Iterator[Violation]:
    key, sequence = sequence_length(v)
    encoded = v["world_model.loss_states"] == "encoded"
    if v["world_model.encoder"] != "mlp" or (sequence >= v["train.horizon"] and not encoded):
        return
    steps = '"encoded", which trains single steps' if encoded else str(sequence)
    yield Violation(
        "world_model.loss_states" if encoded else key,
        f"is {steps}, but the policy imagines train.horizon = {v['train.horizon']} steps: a latent model that "
        "is used for longer than it was trained drifts off (at the 5M size, trained on 4 steps, its error after 16 "
        "was 15 to 40 times that of predicting no change, and the policy fell; trained on 16 it was 0.06)",
        'use encoder = "observation"' if encoded else f"use {v['train.horizon']}, or remove the key",
        severity="warning",
        also=("train.horizon",),
    )


def _end_point(v: Values) -> Iterator[Violation]:
    if v["world_model.source"] == "noise":
        return
    if v["world_model.encoder"] == "observation" and v["world_model.velocity"] != "linear":
        yield Violation(
            "world_model.velocity",
            'must be "linear" where world_model.encoder = "observation": an end point needs a latent on the simplex',
            'use velocity = "linear"',
            also=("world_model.encoder",),
        )


def _distribution_states(v: Values) -> Iterator[Violation]:
    kind = v["world_model.kind"]
    distribution = kind in ("gaussian", "ensemble") or (kind == "flow" and v["world_model.source"] == "noise")
    if distribution and v["world_model.loss_states"] != "encoded":
        yield Violation(
            "world_model.loss_states",
            'must be "encoded" where the world model is a distribution: what came next is no outcome of a state that '
            "the model drew itself, and the spread would be learnt twice",
            'use loss_states = "encoded"',
            also=("world_model.kind",),
        )


def _euler_substeps(v: Values) -> Iterator[Violation]:
    if v["world_model.integrator"] == "euler" and v["world_model.substeps"] >= UNSTABLE_EULER_SUBSTEPS:
        yield Violation(
            "world_model.substeps",
            f"Euler with {UNSTABLE_EULER_SUBSTEPS} or more substeps was unstable before: 5M-flow-v3 fell from a peak "
            "of R 1,137 to an average of 978 over its last 10 evaluations",
            'heun with 4 substeps (48M-flow-v2) is the recommended setting; watch "stability" in `flowmbpo compare`',
            severity="warning",
            also=("world_model.integrator",),
        )


def _task_embedding(v: Values) -> Iterator[Violation]:
    width, several = v["world_model.task_dim"], v["world_model.multitask"]
    if several and width == 0:
        yield Violation(
            "world_model.task_dim",
            "must be above 0 where world_model.multitask = true",
            "a single task has multitask = false and task_dim = 0",
            also=("world_model.multitask",),
        )
    if several:
        yield Violation(
            "world_model.multitask",
            "must be false: the environments here are one task each",
            "use multitask = false and task_dim = 0",
        )
    if width and not several:
        yield Violation(
            "world_model.task_dim",
            "must be 0 for a single task (world_model.multitask = false)",
            "use task_dim = 0; the 48M model of the PWM paper is a multi-task one, with task_dim = 96",
        )


RULES: tuple[Rule, ...] = (
    *REQUIREMENTS,
    *NO_EFFECT,
    _observation_stack,
    _simulator,
    _latent,
    _encoder_units,
    _trained_as_long_as_used,
    _end_point,
    _distribution_states,
    _euler_substeps,
    _task_embedding,
)
