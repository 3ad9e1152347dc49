"""Rules about training, actor, critic and what is expected of a run."""

from __future__ import annotations

from flowmbpo.spec.rule import Rule, Values, requirements

SHORT_HORIZON = 16


def sequence_key(v: Values) -> str:
    """The key that says how many transitions a learnt sequence has."""
    return "train.horizon" if v.train.wm_sequence_length is None else "train.wm_sequence_length"


def _sequence(v: Values) -> dict[str, object]:
    key = sequence_key(v)
    return {"key": key, "length": v[key], "observations": v[key] + 1}


def _short_episode(v: Values) -> object:
    return v.env.episode_length < v[sequence_key(v)] and _sequence(v)


def _no_first_sequence(v: Values) -> object:
    most = v.train.horizon * v.train.warmup_epochs
    return v[sequence_key(v)] > most and {"most": most}


def _replay_below_batch(v: Values) -> object:
    sequences, envs = v.train.wm_batch_size, v.train.num_envs  # read, and so blamed, before the model's kind
    batch, rollout = (count * (v[sequence_key(v)] + 1) for count in (sequences, envs))
    what = f"one batch of train.wm_batch_size = {sequences:,} sequences"
    if v.world_model.kind == "simulator" or batch < rollout:
        batch, what = 0, f"one sequence of each of train.num_envs = {envs:,} environments"
    need = max(batch, rollout)
    return v.train.replay_capacity < need and _sequence(v) | {"need": need, "what": what}


def _batch_not_filled(v: Values) -> object:
    starts = v.train.num_envs * max(0, v.env.episode_length - v[sequence_key(v)] + 1)
    return 0 < starts < v.train.wm_batch_size and _sequence(v) | {"starts": starts}


def _rate_grows(rate: str) -> Rule:
    return Rule(
        rate,
        lambda v: v[rate] < v.train.final_learning_rate and v.train.lr_schedule == "linear",
        "must not be below train.final_learning_rate = {v.train.final_learning_rate:g}: the linear schedule would make "
        "it grow",
        "raise it, or lower train.final_learning_rate",
    )


def _later_than_a_start(key: str) -> Rule:
    return Rule(
        key,
        lambda v: v.train.starts > 1 and v[key] > v.train.start_epochs,
        "must be at most train.start_epochs = {v.train.start_epochs:,} with train.starts = {v.train.starts}: the best "
        "start would be chosen before anything was learnt",
        "lower it, or use longer starts",
    )


def _upside_down(key: str) -> Rule:
    message = "must be written from the lower to the higher number"
    return Rule(key, lambda v: v[key] is not None and v[key][0] > v[key][1], message, "swap the two")


RULES = (
    *requirements(
        {
            ("train.imagination", "alongside"): {"actor.updates": (1, "the real rollout is imagined once")},
            ("train.imagination", "real"): {
                "actor.updates": (1, "there is one real rollout"),
                "world_model.kind": ("simulator", "no other model has the gradient of real steps"),
            },
            ("critic.targets", "imagined"): {"critic.states": ("encoded", "these states are predicted ones already")},
        }
    ),
    *requirements(
        {
            ("train.imagination", form): {"actor.reacts": (False, "the policy's reactions always count there")}
            for form in ("from_visited", "real")
        }
        | {("train.starts", 1): {"train.start_epochs": (1000, "there is one start")}},
        "warning",
    ),
    Rule(
        "train.horizon",
        lambda v: v.train.horizon < SHORT_HORIZON and not v.train.allow_short_horizon,
        f"must be at least {SHORT_HORIZON}, not {{v.train.horizon}}: a baseline trained with horizon 4 by mistake "
        "peaked at R 292 where horizon 16 reached 1,222, and weeks were lost before anybody saw why",
        f"use {SHORT_HORIZON}, or set train.allow_short_horizon = true if a short horizon is what you mean",
    ),
    Rule(
        "actor.recent_steps",
        lambda v: (
            (newest := v.actor.recent_steps * v.train.num_envs) > v.train.replay_capacity
            and v.train.imagination == "from_visited"
            and {"newest": newest}
        ),
        "reaches back {newest:,} transitions, but train.replay_capacity = {v.train.replay_capacity:,}",
        "keep more transitions, or look back less far",
    ),
    Rule(
        "train.lr_schedule",
        lambda v: v.train.lr_schedule != "linear",
        'every earlier run that held up used the linear schedule; the plan of 2025-11-18 says "keep the linear '
        'schedule"',
        'use "linear" unless the schedule is what you study',
        severity="warning",
    ),
    *map(_rate_grows, ("actor.learning_rate", "critic.learning_rate", "train.wm_learning_rate")),
    Rule(
        "actor.log_std_init",
        lambda v: v.actor.log_std_init < v.actor.log_std_min,
        "must not be below actor.log_std_min = {v.actor.log_std_min:g}",
        "raise the start or lower the floor",
    ),
    Rule(
        "env.episode_length",
        _short_episode,
        "must be at least {key} = {length}: no episode would hold a sequence to learn from",
        "use longer episodes or shorter sequences",
    ),
    Rule(
        "train.wm_sequence_length",
        _no_first_sequence,
        "must be at most train.horizon × train.warmup_epochs = {most}: the first update would find no sequence",
        "use at most {most}, or a longer warm-up",
    ),
    Rule(
        "train.replay_capacity",
        _replay_below_batch,
        "must be at least {need:,} transitions to hold {what} of {observations} observations",
        "use {need:,} or more",
    ),
    Rule(
        "train.wm_batch_size",
        _batch_not_filled,
        "cannot be filled: one episode of {v.env.episode_length:,} steps in each of train.num_envs = "
        "{v.train.num_envs:,} environments has {starts:,} sequences of {observations} observations",
        "use at most {starts:,}, or more environments",
    ),
    Rule(
        "train.starts",
        lambda v: (
            v.train.starts > 1
            and (trying := v.train.starts * v.train.start_epochs) >= v.train.max_epochs
            and {"trying": trying}
        ),
        "takes {trying:,} epochs (× train.start_epochs = {v.train.start_epochs:,}) of train.max_epochs = "
        "{v.train.max_epochs:,}: none would be left for the best of them",
        "use fewer or shorter starts, or train for longer",
    ),
    Rule(
        "train.pretrain",
        lambda v: v.train.starts > 1 and v.train.pretrain is not None,
        "must be absent with train.starts = {v.train.starts}: every start would train on all of it",
        "remove the key, or use one start",
    ),
    *map(_later_than_a_start, ("train.warmup_epochs", "train.wm_first_epoch")),
    Rule(
        "train.warmup_epochs",
        lambda v: v.train.warmup_epochs > v.train.max_epochs,
        "must be at most train.max_epochs = {v.train.max_epochs:,}: nothing would ever be learnt",
        "shorten the warm-up or train for longer",
    ),
    Rule(
        "train.wm_first_epoch",
        lambda v: (
            v.train.wm_first_epoch > v.train.max_epochs
            and v.train.pretrain is None
            and v.world_model.kind != "simulator"
        ),
        "is beyond train.max_epochs = {v.train.max_epochs:,}: the many first updates of the world model are never "
        "made, and actor and critic, which wait for them, never learn",
        "lower it, or train for longer",
        severity="warning",
    ),
    Rule(
        "critic.minibatches",
        lambda v: v.critic.minibatches > (most := v.train.num_envs * v.train.horizon) and {"most": most},
        "must be at most train.num_envs × train.horizon = {most:,}, the latents of one epoch",
        "use at most {most:,}",
    ),
    *map(_upside_down, ("expected.peak_reward", "expected.hours")),
)
