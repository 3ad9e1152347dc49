"""Rules about training, actor, critic and what is expected of a run."""

from __future__ import annotations

from collections.abc import Iterator

from flowmbpo.spec.rule import Rule, Values, Violation, requirements, sequence_length

SHORT_HORIZON = 16
REQUIREMENTS = requirements(
    {
        ("train.imagination", "alongside"): {"actor.updates": (1, "the real rollout is imagined once")},
        ("critic.targets", "imagined"): {"critic.states": ("encoded", "these states are predicted ones already")},
    }
)
NO_EFFECT = requirements(
    {("train.imagination", "from_visited"): {"actor.reacts": (False, "the policy's reactions always count there")}},
    "warning",
)


def _short_horizon(v: Values) -> Iterator[Violation]:
    horizon = v["train.horizon"]
    if horizon < SHORT_HORIZON and not v["train.allow_short_horizon"]:
        yield Violation(
            "train.horizon",
            f"must be at least {SHORT_HORIZON}, not {horizon}: a baseline trained with horizon 4 by mistake peaked at "
            "R 292 where horizon 16 reached 1,222, and weeks were lost before anybody saw why",
            f"use {SHORT_HORIZON}, or set train.allow_short_horizon = true if a short horizon is what you mean",
        )


def _visited_states(v: Values) -> Iterator[Violation]:
    newest = v["actor.recent_steps"] * v["train.num_envs"]
    if v["train.imagination"] == "from_visited" and newest > v["train.replay_capacity"]:
        yield Violation(
            "actor.recent_steps",
            f"reaches back {newest:,} transitions, but train.replay_capacity = {v['train.replay_capacity']:,}",
            "keep more transitions, or look back less far",
            also=("train.replay_capacity", "train.num_envs"),
        )


def _linear_schedule(v: Values) -> Iterator[Violation]:
    if v["train.lr_schedule"] != "linear":
        yield Violation(
            "train.lr_schedule",
            'every earlier run that held up used the linear schedule; the plan of 2025-11-18 says "keep the linear '
            'schedule"',
            'use "linear" unless the schedule is what you study',
            severity="warning",
        )


def _schedule_falls(v: Values) -> Iterator[Violation]:
    if v["train.lr_schedule"] != "linear":
        return
    final = v["train.final_learning_rate"]
    for key in ("actor.learning_rate", "critic.learning_rate", "train.wm_learning_rate"):
        if v[key] < final:
            yield Violation(
                key,
                f"must not be below train.final_learning_rate = {final:g}: the linear schedule would make it grow",
                "raise it, or lower train.final_learning_rate",
                also=("train.final_learning_rate",),
            )


def _log_std(v: Values) -> Iterator[Violation]:
    if v["actor.log_std_init"] < v["actor.log_std_min"]:
        yield Violation(
            "actor.log_std_init",
            f"must not be below actor.log_std_min = {v['actor.log_std_min']:g}",
            "raise the start or lower the floor",
            also=("actor.log_std_min",),
        )


def _sequence_fits_episode(v: Values) -> Iterator[Violation]:
    key, sequence = sequence_length(v)
    if v["env.episode_length"] < sequence:
        yield Violation(
            "env.episode_length",
            f"must be at least {key} = {sequence}: no episode would hold a sequence to learn from",
            "use longer episodes or shorter sequences",
            also=(key,),
        )
    first = v["train.horizon"] * v["train.warmup_epochs"]
    if sequence > first:
        yield Violation(
            "train.wm_sequence_length",
            f"must be at most train.horizon × train.warmup_epochs = {first}: the first update would find no sequence",
            f"use at most {first}, or a longer warm-up",
            also=("train.horizon", "train.warmup_epochs"),
        )


def _replay_holds_batch(v: Values) -> Iterator[Violation]:
    key, sequence = sequence_length(v)
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
        yield Violation(
            "train.replay_capacity",
            f"must be at least {need:,} transitions to hold {what} of {sequence + 1} observations",
            f"use {need:,} or more",
            also=("train.wm_batch_size", "train.num_envs", key),
        )


def _environments_fill_batch(v: Values) -> Iterator[Violation]:
    key, sequence = sequence_length(v)
    starts = v["train.num_envs"] * max(0, v["env.episode_length"] - sequence + 1)
    if 0 < starts < v["train.wm_batch_size"]:
        yield Violation(
            "train.wm_batch_size",
            f"cannot be filled: one episode of {v['env.episode_length']:,} steps in each of train.num_envs = "
            f"{v['train.num_envs']:,} environments has {starts:,} sequences of {sequence + 1} observations",
            f"use at most {starts:,}, or more environments",
            also=("train.num_envs", "env.episode_length", key),
        )


def _warmup(v: Values) -> Iterator[Violation]:
    if v["train.warmup_epochs"] > v["train.max_epochs"]:
        yield Violation(
            "train.warmup_epochs",
            f"must be at most train.max_epochs = {v['train.max_epochs']:,}: nothing would ever be learnt",
            "shorten the warm-up or train for longer",
            also=("train.max_epochs",),
        )


def _first_updates(v: Values) -> Iterator[Violation]:
    if v["train.wm_first_epoch"] > v["train.max_epochs"]:
        yield Violation(
            "train.wm_first_epoch",
            f"is beyond train.max_epochs = {v['train.max_epochs']:,}: the many first updates of the world model "
            "are never made",
            "lower it, or train for longer",
            severity="warning",
            also=("train.max_epochs",),
        )


def _minibatches(v: Values) -> Iterator[Violation]:
    samples = v["train.num_envs"] * v["train.horizon"]
    if v["critic.minibatches"] > samples:
        yield Violation(
            "critic.minibatches",
            f"must be at most train.num_envs × train.horizon = {samples:,}, the latents of one epoch",
            f"use at most {samples:,}",
            also=("train.num_envs", "train.horizon"),
        )


def _expectations(v: Values) -> Iterator[Violation]:
    for key in ("expected.peak_reward", "expected.hours"):
        if v[key] is not None and v[key][0] > v[key][1]:
            yield Violation(key, "must be written from the lower to the higher number", "swap the two")


RULES: tuple[Rule, ...] = (
    *REQUIREMENTS,
    *NO_EFFECT,
    _short_horizon,
    _visited_states,
    _linear_schedule,
    _schedule_falls,
    _log_std,
    _sequence_fits_episode,
    _replay_holds_batch,
    _environments_fill_batch,
    _warmup,
    _first_updates,
    _minibatches,
    _expectations,
)
