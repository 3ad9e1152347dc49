"""Rules about the environment and the world model."""

from __future__ import annotations

from flowmbpo.spec.rule import Rule, Values, requirements
from flowmbpo.spec.schema import ENV_SECTIONS, AntEnvSpec
from flowmbpo.spec.training_rules import sequence_key

UNSTABLE_EULER_SUBSTEPS = 8
DISTURBANCES = ("torque_noise", "payload", "action_delay", "observation_noise", "hidden_velocities")


def _observation_dim(v: Values) -> int:
    section = ENV_SECTIONS[v.env.kind]
    if isinstance(section.observation_dim, int):
        return section.observation_dim
    # Keys that are not read here are not to blame.
    keys = ("hidden_velocities", "observation_stack") if section is AntEnvSpec else section.model_fields
    return int(section(**{key: v[f"env.{key}"] for key in keys}).observation_dim)


def _another_width(v: Values) -> object:
    width = v.world_model.encoder == "observation" and _observation_dim(v)
    return width and v.world_model.latent_dim != width and {"width": width}


def _not_in_groups(v: Values) -> object:
    latent, group = v.world_model.latent_dim, v.world_model.simnorm_dim
    if v.world_model.encoder == "observation" or not latent % group:
        return None
    lower = latent - latent % group
    return {"near": f"{lower} or {lower + group}" if lower else lower + group}


def _distribution(v: Values) -> bool:
    kind = v.world_model.kind
    return kind in ("gaussian", "ensemble") or (kind == "flow" and v.world_model.source == "noise")


def _undisturbed(key: str) -> Rule:
    usual = getattr(AntEnvSpec(), key)
    return Rule(
        f"env.{key}",
        lambda v: v.world_model.kind == "simulator" and v[f"env.{key}"] != usual,
        f'must be {str(usual).lower()} where world_model.kind = "simulator": an observation is then not the whole '
        "state, and what follows from it is not certain",
        "remove the key, or use a model that learns",
    )


_DRIFT = (
    "but the policy imagines train.horizon = {v.train.horizon} steps: a latent model that is used for longer than it "
    "was trained drifts off (at the 5M size, trained on 4 steps, its error after 16 was 15 to 40 times that of "
    "predicting no change, and the policy fell; trained on 16 it was 0.06)"
)

RULES = (
    *requirements(
        {
            ("world_model.encoder", "observation"): {
                "world_model.step": (
                    "absolute",
                    "an observation lies on no simplex, and its change is predicted anyway",
                ),
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
                "world_model.objective": (
                    "matching",
                    "the integrated prediction of one noise is no estimate of the mean",
                ),
            },
            ("world_model.kind", "gaussian"): {
                "world_model.encoder": ("observation", "Gaussian noise leaves the simplices of a learned latent"),
            },
            ("actor.symmetric", True): {
                "env.kind": ("ant", "the mirror image of another body is not known"),
                "env.hidden_velocities": (False, "the mirror image of a part of an observation is not known"),
                "env.observation_stack": (1, "the mirror image of several observations is not known"),
                "world_model.encoder": ("observation", "the mirror image of a learned latent is not known"),
            },
        }
    ),
    *requirements(
        {("world_model.objective", "prediction"): {"world_model.tau_sampling": ("uniform", "no tau is sampled")}},
        "warning",
    ),
    Rule(
        "env.observation_stack",
        lambda v: v.env.observation_stack > 1 and not any(v[f"env.{key}"] for key in DISTURBANCES),
        "must be 1 where nothing disturbs the Ant: one observation is then its whole state, older ones add nothing",
        f"use 1, or one of env.{', env.'.join(DISTURBANCES)}",
    ),
    Rule(
        "world_model.kind",
        lambda v: v.world_model.kind == "simulator" and v.env.kind != "ant",
        'must not be "simulator" where env.kind = "{v.env.kind}": only the Ant\'s simulator has gradients',
        'use env.kind = "ant", or a model that learns: "mlp" or "flow"',
    ),
    Rule(
        "train.pretrain",
        lambda v: v.world_model.kind == "simulator" and v.train.pretrain is not None,
        'must be absent where world_model.kind = "simulator": the simulator has nothing to learn',
        "remove the key",
    ),
    *map(_undisturbed, DISTURBANCES),
    Rule(
        "world_model.latent_dim",
        _another_width,
        'must be {width}, the width of an observation, where world_model.encoder = "observation"',
        "use {width}",
    ),
    Rule(
        "world_model.latent_dim",
        _not_in_groups,
        "must be divisible by world_model.simnorm_dim = {v.world_model.simnorm_dim} (features per group of SimNorm)",
        "the nearest are {near}",
    ),
    Rule(
        "world_model.encoder_units",
        lambda v: v.world_model.encoder == "mlp" and not v.world_model.encoder_units,
        'must name at least one hidden width where world_model.encoder = "mlp"',
        "write, for instance, encoder_units = [256]",
    ),
    Rule(
        "world_model.loss_states",
        lambda v: v.world_model.loss_states == "encoded" and v.world_model.encoder == "mlp",
        'is "encoded", which trains single steps, ' + _DRIFT,
        'use encoder = "observation"',
        severity="warning",
    ),
    Rule(
        "train.wm_sequence_length",
        lambda v: (
            v.world_model.encoder == "mlp"
            and v.world_model.loss_states != "encoded"
            and v[sequence_key(v)] < v.train.horizon
        ),
        "is {v.train.wm_sequence_length}, " + _DRIFT,
        "use {v.train.horizon}, or remove the key",
        severity="warning",
    ),
    Rule(
        "world_model.velocity",
        lambda v: (
            v.world_model.velocity != "linear"
            and v.world_model.encoder == "observation"
            and v.world_model.source != "noise"
        ),
        'must be "linear" where world_model.encoder = "observation": an end point needs a latent on the simplex',
        'use velocity = "linear"',
    ),
    Rule(
        "world_model.loss_states",
        lambda v: v.world_model.loss_states != "encoded" and _distribution(v),
        'must be "encoded" where the world model is a distribution: what came next is no outcome of a state that the '
        "model drew itself, and the spread would be learnt twice",
        'use loss_states = "encoded"',
    ),
    Rule(
        "world_model.substeps",
        lambda v: v.world_model.substeps >= UNSTABLE_EULER_SUBSTEPS and v.world_model.integrator == "euler",
        f"Euler with {UNSTABLE_EULER_SUBSTEPS} or more substeps was unstable before: 5M-flow-v3 fell from a peak of R "
        "1,137 to an average of 978 over its last 10 evaluations",
        'heun with 4 substeps (48M-flow-v2) is the recommended setting; watch "stability" in `flowmbpo compare`',
        severity="warning",
    ),
    Rule(
        "world_model.task_dim",
        lambda v: v.world_model.multitask and v.world_model.task_dim == 0,
        "must be above 0 where world_model.multitask = true",
        "a single task has multitask = false and task_dim = 0",
    ),
    Rule(
        "world_model.multitask",
        lambda v: v.world_model.multitask,
        "must be false: the environments here are one task each",
        "use multitask = false and task_dim = 0",
    ),
    Rule(
        "world_model.task_dim",
        lambda v: v.world_model.task_dim and not v.world_model.multitask,
        "must be 0 for a single task (world_model.multitask = false)",
        "use task_dim = 0; the 48M model of the PWM paper is a multi-task one, with task_dim = 96",
    ),
)
