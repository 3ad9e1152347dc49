"""Rules between keys: what no single value can be blamed for. Each is a function of the keys it reads.

A rule is skipped when one of its keys is missing or was refused already, so a file's other mistakes never hide it.
To add one, write a generator of `Verdict`s and list it in `RULES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from flowmbpo.spec.schema import ENV_EXTENSIONS, AntEnvSpec, PointMassEnvSpec

SHORT_HORIZON = 16
UNSTABLE_EULER_SUBSTEPS = 8
SHORTCUT_SUBSTEPS = (1, 2, 4)
DISTURBANCES = ("torque_noise", "payload", "action_delay", "observation_noise", "hidden_velocities")


class Absent(KeyError):
    """A rule asked for a key that has no sound value."""


class Values(Mapping[str, Any]):
    """Resolved values by dotted key."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def __getitem__(self, key: str) -> Any:
        try:
            return self._values[key]
        except KeyError:
            raise Absent(key) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


@dataclass(frozen=True)
class Verdict:
    """What a rule says against a key. Of this key and `also`, the one that the experiment itself wrote is blamed."""

    key: str
    message: str
    hint: str = ""
    severity: Literal["error", "warning"] = "error"
    also: tuple[str, ...] = ()


Rule = Callable[[Values], Iterator[Verdict]]


def _short_horizon(v: Values) -> Iterator[Verdict]:
    horizon = v["train.horizon"]
    if horizon < SHORT_HORIZON and not v["train.allow_short_horizon"]:
        yield Verdict(
            "train.horizon",
            f"must be at least {SHORT_HORIZON}, not {horizon}: a baseline trained with horizon 4 by mistake peaked at "
            "R 292 where horizon 16 reached 1,222, and weeks were lost before anybody saw why",
            f"use {SHORT_HORIZON}, or set train.allow_short_horizon = true if a short horizon is what you mean",
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


def _observation_stack(v: Values) -> Iterator[Verdict]:
    if v["env.observation_stack"] > 1 and not any(v[f"env.{key}"] for key in DISTURBANCES):
        yield Verdict(
            "env.observation_stack",
            "must be 1 where nothing disturbs the Ant: one observation is then its whole state, older ones add nothing",
            f"use 1, or one of env.{', env.'.join(DISTURBANCES)}",
        )


def _simulator(v: Values) -> Iterator[Verdict]:
    if v["world_model.kind"] != "simulator":
        return
    if v["env.kind"] != "ant":
        yield Verdict(
            "world_model.kind",
            f'must not be "simulator" where env.kind = "{v["env.kind"]}": only the Ant\'s simulator has gradients',
            'use env.kind = "ant", or a model that learns: "mlp" or "flow"',
            also=("env.kind",),
        )
        return
    if v["train.pretrain"] is not None:
        yield Verdict(
            "train.pretrain",
            'must be absent where world_model.kind = "simulator": the simulator has nothing to learn',
            "remove the key",
            also=("world_model.kind",),
        )
    usual = AntEnvSpec()
    for key in DISTURBANCES:
        if v[f"env.{key}"] != getattr(usual, key):
            yield Verdict(
                f"env.{key}",
                f'must be {str(getattr(usual, key)).lower()} where world_model.kind = "simulator": an observation is '
                "then not the whole state, and what follows from it is not certain",
                "remove the key, or use a model that learns",
                also=("world_model.kind",),
            )


def _reacting(v: Values) -> Iterator[Verdict]:
    if v["actor.reacts"] and v["train.imagination"] == "from_visited":
        yield Verdict(
            "actor.reacts",
            'has no effect where train.imagination = "from_visited": the policy\'s reactions always count there',
            "remove the key",
            severity="warning",
            also=("train.imagination",),
        )


def _latent(v: Values) -> Iterator[Verdict]:
    latent = v["world_model.latent_dim"]
    if v["world_model.encoder"] == "observation":
        observation = _observation_dim(v)
        if latent != observation:
            yield Verdict(
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
        yield Verdict(
            "world_model.latent_dim",
            f"must be divisible by world_model.simnorm_dim = {group} (features per group of SimNorm)",
            f"the nearest are {near}",
            also=("world_model.simnorm_dim",),
        )


def _encoder_units(v: Values) -> Iterator[Verdict]:
    learned, units = v["world_model.encoder"] == "mlp", v["world_model.encoder_units"]
    if learned and not units:
        yield Verdict(
            "world_model.encoder_units",
            'must name at least one hidden width where world_model.encoder = "mlp"',
            "write, for instance, encoder_units = [256]",
            also=("world_model.encoder",),
        )
    if units and not learned:
        yield Verdict(
            "world_model.encoder_units",
            'must be empty where world_model.encoder = "observation": there is no encoder network',
            "write encoder_units = []",
            also=("world_model.encoder",),
        )


def _simplex_only(v: Values) -> Iterator[Verdict]:
    if v["world_model.encoder"] != "observation":
        return
    if v["world_model.step"] != "absolute":
        yield Verdict(
            "world_model.step",
            'must be "absolute" where world_model.encoder = "observation": an observation lies on no simplex, and its '
            "predicted change is added to it anyway",
            "remove the key",
            also=("world_model.encoder",),
        )
    if v["world_model.latent_input"] != "raw":
        yield Verdict(
            "world_model.latent_input",
            'must be "raw" where world_model.encoder = "observation": observations are standardised by '
            "train.normalize_observations",
            "remove the key",
            also=("world_model.encoder",),
        )
    if v["world_model.decoder_units"]:
        yield Verdict(
            "world_model.decoder_units",
            'must be empty where world_model.encoder = "observation": there is nothing to reconstruct',
            "write decoder_units = []",
            also=("world_model.encoder",),
        )


def _logit_residual_flow(v: Values) -> Iterator[Verdict]:
    if v["world_model.step"] == "logit_residual" and v["world_model.velocity"] == "linear":
        yield Verdict(
            "world_model.step",
            'must be "absolute" where world_model.velocity = "linear": only an end point lies on the simplices',
            'use velocity = "endpoint"',
            also=("world_model.velocity",),
        )


def _trained_as_long_as_used(v: Values) -> Iterator[Verdict]:
    key, sequence = _sequence_length(v)
    encoded = v["world_model.loss_states"] == "encoded"
    if v["world_model.encoder"] != "mlp" or (sequence >= v["train.horizon"] and not encoded):
        return
    steps = '"encoded", which trains single steps' if encoded else str(sequence)
    yield Verdict(
        "world_model.loss_states" if encoded else key,
        f"is {steps}, but the policy imagines train.horizon = {v['train.horizon']} steps: a latent model that "
        "is used for longer than it was trained drifts off (at the 5M size, trained on 4 steps, its error after 16 "
        "was 15 to 40 times that of predicting no change, and the policy fell; trained on 16 it was 0.06)",
        'use encoder = "observation"' if encoded else f"use {v['train.horizon']}, or remove the key",
        severity="warning",
        also=("train.horizon",),
    )


def _objective(v: Values) -> Iterator[Verdict]:
    if v["world_model.velocity"] == "shortcut" and v["world_model.objective"] != "matching":
        yield Verdict(
            "world_model.objective",
            'must be "matching" where world_model.velocity = "shortcut": its second loss makes long steps agree',
            "remove the key",
            also=("world_model.velocity",),
        )
    if v["world_model.objective"] == "prediction" and v["world_model.tau_sampling"] != "uniform":
        yield Verdict(
            "world_model.tau_sampling",
            'has no effect where world_model.objective = "prediction": no tau is sampled',
            "remove the key",
            severity="warning",
            also=("world_model.objective",),
        )


def _end_point(v: Values) -> Iterator[Verdict]:
    if v["world_model.source"] == "noise":
        return
    if v["world_model.encoder"] == "observation" and v["world_model.velocity"] != "linear":
        yield Verdict(
            "world_model.velocity",
            'must be "linear" where world_model.encoder = "observation": an end point needs a latent on the simplex',
            'use velocity = "linear"',
            also=("world_model.encoder",),
        )


def _noise_source(v: Values) -> Iterator[Verdict]:
    if v["world_model.source"] != "noise":
        return
    allowed: dict[str, tuple[tuple[str, ...], str]] = {
        "velocity": (("endpoint", "shortcut"), "the velocity follows from the predicted end point"),
        "tau_sampling": (("uniform", "early"), "a path from noise is integrated through every tau"),
        "objective": (("matching",), "the integrated prediction of one noise is no estimate of the mean"),
    }
    for key, (words, reason) in allowed.items():
        if v[f"world_model.{key}"] not in words:
            choices = " or ".join(f'"{word}"' for word in words)
            yield Verdict(
                f"world_model.{key}",
                f'must be {choices} where world_model.source = "noise": {reason}',
                f'use {key} = "{words[0]}"',
                also=("world_model.source",),
            )


def _distribution_states(v: Values) -> Iterator[Verdict]:
    kind = v["world_model.kind"]
    distribution = kind in ("gaussian", "ensemble") or (kind == "flow" and v["world_model.source"] == "noise")
    if distribution and v["world_model.loss_states"] != "encoded":
        yield Verdict(
            "world_model.loss_states",
            'must be "encoded" where the world model is a distribution: what came next is no outcome of a state that '
            "the model drew itself, and the spread would be learnt twice",
            'use loss_states = "encoded"',
            also=("world_model.kind",),
        )


def _gaussian_latent(v: Values) -> Iterator[Verdict]:
    if v["world_model.kind"] == "gaussian" and v["world_model.encoder"] != "observation":
        yield Verdict(
            "world_model.encoder",
            'must be "observation" where world_model.kind = "gaussian": Gaussian noise leaves the simplices of a '
            "learned latent",
            'use encoder = "observation", or a flow with source = "noise"',
            also=("world_model.kind",),
        )


def _shortcut_steps(v: Values) -> Iterator[Verdict]:
    if v["world_model.velocity"] != "shortcut":
        return
    if v["world_model.integrator"] != "euler":
        yield Verdict(
            "world_model.integrator",
            'must be "euler" where world_model.velocity = "shortcut": its steps are already corrected for their length',
            'use "euler"',
            also=("world_model.velocity",),
        )
    if v["world_model.substeps"] not in SHORTCUT_SUBSTEPS:
        yield Verdict(
            "world_model.substeps",
            'must be 1, 2 or 4 where world_model.velocity = "shortcut": other lengths of step are not trained',
            "1 is what a shortcut is for",
            also=("world_model.velocity",),
        )


def _visited_states(v: Values) -> Iterator[Verdict]:
    if v["train.imagination"] == "alongside" and v["actor.updates"] > 1:
        yield Verdict(
            "actor.updates",
            'must be 1 where train.imagination = "alongside": the real rollout is imagined once',
            'use 1, or train.imagination = "from_visited"',
            also=("train.imagination",),
        )
    newest = v["actor.recent_steps"] * v["train.num_envs"]
    if v["train.imagination"] == "from_visited" and newest > v["train.replay_capacity"]:
        yield Verdict(
            "actor.recent_steps",
            f"reaches back {newest:,} transitions, but train.replay_capacity = {v['train.replay_capacity']:,}",
            "keep more transitions, or look back less far",
            also=("train.replay_capacity", "train.num_envs"),
        )


def _euler_substeps(v: Values) -> Iterator[Verdict]:
    if v["world_model.integrator"] == "euler" and v["world_model.substeps"] >= UNSTABLE_EULER_SUBSTEPS:
        yield Verdict(
            "world_model.substeps",
            f"Euler with {UNSTABLE_EULER_SUBSTEPS} or more substeps was unstable before: 5M-flow-v3 fell from a peak "
            "of R 1,137 to an average of 978 over its last 10 evaluations",
            'heun with 4 substeps (48M-flow-v2) is the recommended setting; watch "stability" in `flowmbpo compare`',
            severity="warning",
            also=("world_model.integrator",),
        )


def _linear_schedule(v: Values) -> Iterator[Verdict]:
    if v["train.lr_schedule"] != "linear":
        yield Verdict(
            "train.lr_schedule",
            'every earlier run that held up used the linear schedule; the plan of 2025-11-18 says "keep the linear '
            'schedule"',
            'use "linear" unless the schedule is what you study',
            severity="warning",
        )


def _schedule_falls(v: Values) -> Iterator[Verdict]:
    if v["train.lr_schedule"] != "linear":
        return
    final = v["train.final_learning_rate"]
    for key in ("actor.learning_rate", "critic.learning_rate", "train.wm_learning_rate"):
        if v[key] < final:
            yield Verdict(
                key,
                f"must not be below train.final_learning_rate = {final:g}: the linear schedule would make it grow",
                "raise it, or lower train.final_learning_rate",
                also=("train.final_learning_rate",),
            )


def _task_embedding(v: Values) -> Iterator[Verdict]:
    width, several = v["world_model.task_dim"], v["world_model.multitask"]
    if several and width == 0:
        yield Verdict(
            "world_model.task_dim",
            "must be above 0 where world_model.multitask = true",
            "a single task has multitask = false and task_dim = 0",
            also=("world_model.multitask",),
        )
    if several:
        yield Verdict(
            "world_model.multitask",
            "must be false: the environments here are one task each",
            "use multitask = false and task_dim = 0",
        )
    if width and not several:
        yield Verdict(
            "world_model.task_dim",
            "must be 0 for a single task (world_model.multitask = false)",
            "use task_dim = 0; the 48M model of the PWM paper is a multi-task one, with task_dim = 96",
        )


def _log_std(v: Values) -> Iterator[Verdict]:
    if v["actor.log_std_init"] < v["actor.log_std_min"]:
        yield Verdict(
            "actor.log_std_init",
            f"must not be below actor.log_std_min = {v['actor.log_std_min']:g}",
            "raise the start or lower the floor",
            also=("actor.log_std_min",),
        )


def _sequence_length(v: Values) -> tuple[str, int]:
    """The key that says how many transitions a learnt sequence has, and how many."""
    given = v["train.wm_sequence_length"]
    return ("train.horizon", v["train.horizon"]) if given is None else ("train.wm_sequence_length", given)


def _sequence_fits_episode(v: Values) -> Iterator[Verdict]:
    key, sequence = _sequence_length(v)
    if v["env.episode_length"] < sequence:
        yield Verdict(
            "env.episode_length",
            f"must be at least {key} = {sequence}: no episode would hold a sequence to learn from",
            "use longer episodes or shorter sequences",
            also=(key,),
        )
    first = v["train.horizon"] * v["train.warmup_epochs"]
    if sequence > first:
        yield Verdict(
            "train.wm_sequence_length",
            f"must be at most train.horizon × train.warmup_epochs = {first}: the first update would find no sequence",
            f"use at most {first}, or a longer warm-up",
            also=("train.horizon", "train.warmup_epochs"),
        )


def _replay_holds_batch(v: Values) -> Iterator[Verdict]:
    key, sequence = _sequence_length(v)
    learned = v["world_model.kind"] != "simulator"
    batch = learned * v["train.wm_batch_size"] * (sequence + 1)
    rollout = v["train.num_envs"] * (sequence + 1)
    need = max(batch, rollout)
    if v["train.replay_capacity"] < need:
        what = (
            f"one batch of train.wm_batch_size = {v['train.wm_batch_size']:,} sequences"
            if batch >= rollout
            else f"one sequence of each of train.num_envs = {v['train.num_envs']:,} environments"
        )
        yield Verdict(
            "train.replay_capacity",
            f"must be at least {need:,} transitions to hold {what} of {sequence + 1} observations",
            f"use {need:,} or more",
            also=("train.wm_batch_size", "train.num_envs", key),
        )


def _environments_fill_batch(v: Values) -> Iterator[Verdict]:
    key, sequence = _sequence_length(v)
    starts = v["train.num_envs"] * max(0, v["env.episode_length"] - sequence + 1)
    if 0 < starts < v["train.wm_batch_size"]:
        yield Verdict(
            "train.wm_batch_size",
            f"cannot be filled: one episode of {v['env.episode_length']:,} steps in each of train.num_envs = "
            f"{v['train.num_envs']:,} environments has {starts:,} sequences of {sequence + 1} observations",
            f"use at most {starts:,}, or more environments",
            also=("train.num_envs", "env.episode_length", key),
        )


def _warmup(v: Values) -> Iterator[Verdict]:
    if v["train.warmup_epochs"] > v["train.max_epochs"]:
        yield Verdict(
            "train.warmup_epochs",
            f"must be at most train.max_epochs = {v['train.max_epochs']:,}: nothing would ever be learnt",
            "shorten the warm-up or train for longer",
            also=("train.max_epochs",),
        )


def _first_updates(v: Values) -> Iterator[Verdict]:
    if v["train.wm_first_epoch"] > v["train.max_epochs"]:
        yield Verdict(
            "train.wm_first_epoch",
            f"is beyond train.max_epochs = {v['train.max_epochs']:,}: the many first updates of the world model "
            "are never made",
            "lower it, or train for longer",
            severity="warning",
            also=("train.max_epochs",),
        )


def _minibatches(v: Values) -> Iterator[Verdict]:
    samples = v["train.num_envs"] * v["train.horizon"]
    if v["critic.minibatches"] > samples:
        yield Verdict(
            "critic.minibatches",
            f"must be at most train.num_envs × train.horizon = {samples:,}, the latents of one epoch",
            f"use at most {samples:,}",
            also=("train.num_envs", "train.horizon"),
        )


def _value_states(v: Values) -> Iterator[Verdict]:
    if v["critic.states"] == "predicted" and v["critic.targets"] != "real":
        yield Verdict(
            "critic.states",
            'must be "encoded" with critic.targets = "imagined": these states are predicted ones already',
            'remove it, or set critic.targets = "real"',
            also=("critic.targets",),
        )


def _expectations(v: Values) -> Iterator[Verdict]:
    for key in ("expected.peak_reward", "expected.hours"):
        if v[key] is not None and v[key][0] > v[key][1]:
            yield Verdict(key, "must be written from the lower to the higher number", "swap the two")


RULES: tuple[Rule, ...] = (
    _short_horizon,
    _observation_stack,
    _simulator,
    _reacting,
    _latent,
    _encoder_units,
    _simplex_only,
    _logit_residual_flow,
    _trained_as_long_as_used,
    _objective,
    _end_point,
    _noise_source,
    _distribution_states,
    _gaussian_latent,
    _shortcut_steps,
    _visited_states,
    _euler_substeps,
    _linear_schedule,
    _schedule_falls,
    _task_embedding,
    _log_std,
    _sequence_fits_episode,
    _replay_holds_batch,
    _environments_fill_batch,
    _warmup,
    _first_updates,
    _minibatches,
    _value_states,
    _expectations,
)


def judge(values: Mapping[str, Any]) -> list[Verdict]:
    """All verdicts on the resolved values, given by dotted key."""
    given = Values(values)
    verdicts: list[Verdict] = []
    for rule in RULES:
        try:
            verdicts.extend(rule(given))
        except Absent:
            continue
    return verdicts
