"""The catalogue of every metric: name, unit, meaning, which direction is good and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """One row of the catalogue. `name` may hold `{placeholders}`; `better` is empty where neither direction is good."""

    name: str
    unit: str
    meaning: str
    better: Literal["higher", "lower", ""] = ""
    source: str = "trainer"


# R is the undiscounted sum of the environment's own rewards over one episode. Means over a logging interval are taken
# over its updates; H is the horizon.
CATALOGUE: tuple[Metric, ...] = (
    Metric("train/epoch", "epochs", "epochs finished when the point was written"),
    Metric(
        "train/episode_reward",
        "reward",
        "R, mean over the last 100 finished training episodes (exploring policy, real environment)",
        "higher",
    ),
    Metric("train/episode_length", "control steps", "mean length of the last 100 finished episodes", "higher"),
    Metric(
        "train/world_model_loss",
        "–",
        "dynamics loss + reward loss, mean over the world-model updates of the interval",
        "lower",
        "algorithm",
    ),
    Metric(
        "train/dynamics_loss",
        "–",
        "(1/H) Σ γ^t ‖ẑ_{t+1} − sg(e(o_{t+1}))‖²; for a flow the matching loss ‖v(z_τ, a, τ) − (z_tgt − z_s)‖², for a "
        "Gaussian the negative log-likelihood: not comparable between kinds of model (model/* is)",
        "lower",
        "algorithm",
    ),
    Metric(
        "train/reward_loss",
        "–",
        "(1/H) Σ γ^t (r̂_t − r_t)² in scaled rewards, or the cross-entropy of the two-hot head",
        "lower",
        "algorithm",
    ),
    Metric(
        "train/actor_loss",
        "–",
        "−Σ_k γ^k r̂ − γ^n V(z_n) over imagined segments, divided by its running deviation",
        "lower",
        "algorithm",
    ),
    Metric(
        "train/value_loss",
        "reward²",
        "(V − TD(λ) target)², mean over the ensemble and the critic's minibatches",
        "lower",
        "algorithm",
    ),
    Metric(
        "train/continuation_loss", "nat", "binary cross-entropy of the predicted end of episodes", "lower", "algorithm"
    ),
    Metric(
        "train/decoder_loss",
        "–",
        "squared error of the observation reconstructed from encoded and predicted latents",
        "lower",
        "algorithm",
    ),
    Metric(
        "train/outlying_rewards",
        "count",
        "real rewards so far that were too far from all others to enter the running scale",
        "lower",
        "algorithm",
    ),
    Metric("train/value_mean", "reward", "mean of the critic's TD(λ) targets, imagined or real", "", "algorithm"),
    Metric(
        "train/policy_entropy",
        "nat",
        "entropy before tanh, the same in every state",
        "",
        "algorithm",
    ),
    Metric(
        "train/reward_correlation",
        "–",
        "Pearson correlation of predicted and real reward over the interval's real steps; near 0 means that the policy "
        "has no reward gradient to follow",
        "higher",
        "algorithm",
    ),
    Metric(
        "train/reward_bias", "reward", "mean of predicted − real reward over the interval's real steps", "", "algorithm"
    ),
    Metric("train/actor_gradient_norm", "–", "norm of the actor's gradient before clipping", "", "algorithm"),
    Metric("train/critic_gradient_norm", "–", "norm of the critic's gradient before clipping", "", "algorithm"),
    Metric(
        "train/world_model_gradient_norm", "–", "norm of the world model's gradient before clipping", "", "algorithm"
    ),
    Metric(
        "train/actor_gradient_snr",
        "–",
        "‖E g‖² / Σ Var g of one actor update's gradient, from 8 estimates on held-out states: above 1, more signal "
        "than noise",
        "higher",
        "algorithm",
    ),
    Metric(
        "train/nonfinite_updates",
        "updates",
        "updates refused, and real steps with a value that was not finite, since the start",
        "lower",
        "algorithm",
    ),
    Metric(
        "train/return_scale", "reward", "running deviation by which the actor's objective is divided", "", "algorithm"
    ),
    Metric("train/reward_scale", "reward", "running deviation by which rewards are divided", "", "algorithm"),
    Metric("train/replay_transitions", "transitions", "transitions in the replay buffer", "", "algorithm"),
    Metric("train/updates", "updates", "world-model updates since the start", "", "algorithm"),
    Metric("lr/{part}", "–", "learning rate of the actor, the critic or the world model", "", "algorithm"),
    Metric(
        "model/latent_error_{steps}",
        "–",
        "mean squared error of the latent after that many open-loop steps (of `next`, the model's best guess without "
        "noise), against the encoded real observation, on "
        "the evaluation's episodes, which are never trained on",
        "lower",
        "algorithm",
    ),
    Metric(
        "model/latent_error_{steps}_relative",
        "–",
        "the same over the error of saying that nothing changes: comparable between models with other latents",
        "lower",
        "algorithm",
    ),
    Metric(
        "model/energy_score",
        "–",
        "E‖X − y‖ − E‖X − X'‖/2 of the next latent y and 19 samples X of the model (of one without a distribution: its "
        "prediction), on the evaluation's episodes; divided by √Z; smallest for the true distribution",
        "lower",
        "algorithm",
    ),
    Metric(
        "model/energy_score_relative",
        "–",
        "the same over the score of saying that nothing changes: comparable between models with other latents",
        "lower",
        "algorithm",
    ),
    Metric(
        "model/energy_score_{steps}_relative",
        "–",
        "the same after that many open-loop steps of each sample",
        "lower",
        "algorithm",
    ),
    Metric(
        "model/coverage_{percent}",
        "–",
        "share of the next latent's features inside the central interval of that many percent of the 19 samples: that "
        "many percent for a calibrated spread, less for one that is too narrow, 0 without a distribution",
        "",
        "algorithm",
    ),
    Metric(
        "model/reward_correlation",
        "–",
        "Pearson correlation of predicted and real reward on the evaluation's episodes",
        "higher",
        "algorithm",
    ),
    Metric(
        "model/reward_bias", "reward", "mean of predicted − real reward on the evaluation's episodes", "", "algorithm"
    ),
    Metric(
        "model/gradient_cosine_{steps}",
        "–",
        "cosine between the model's and the simulator's gradient of the return of that many steps with respect to the "
        "actions, median over states of the evaluation's episodes: 1 is the true direction",
        "higher",
        "algorithm",
    ),
    Metric("model/gradient_cosine_{steps}_{quartile}", "–", "quartile of the same", "higher", "algorithm"),
    Metric(
        "model/gradient_length_{steps}",
        "–",
        "length of the model's gradient over the simulator's, median over the same states: 1 is right",
        "",
        "algorithm",
    ),
    Metric("model/gradient_length_{steps}_{quartile}", "–", "quartile of the same", "", "algorithm"),
    Metric(
        "model/return_rank_{steps}",
        "–",
        "Spearman's correlation of predicted and real return of that many steps over 8 action sequences from one "
        "state, median over 8 states",
        "higher",
        "algorithm",
    ),
    Metric(
        "model/simplex_distance",
        "–",
        "mean Euclidean distance of the latent from the product of simplices after 16 open-loop steps: 0 on it",
        "lower",
        "algorithm",
    ),
    Metric(
        "model/velocity_evaluations",
        "states",
        "evaluations of the dynamics network per epoch, one per state: what substeps cost (one per control step for an "
        "MLP, 2K for Heun, and one more in the loss of a flow)",
        "lower",
        "algorithm",
    ),
    Metric(
        "eval/mean_reward",
        "reward",
        "mean R of the deterministic policy over full episodes of the real environment from fixed seeds: the headline",
        "higher",
        "evaluator",
    ),
    Metric("eval/std_reward", "reward", "standard deviation of R over the episodes", "", "evaluator"),
    Metric("eval/median_reward", "reward", "median of R", "higher", "evaluator"),
    Metric("eval/q05_reward", "reward", "5th percentile of R", "higher", "evaluator"),
    Metric("eval/q25_reward", "reward", "25th percentile of R", "higher", "evaluator"),
    Metric("eval/q75_reward", "reward", "75th percentile of R", "higher", "evaluator"),
    Metric("eval/q95_reward", "reward", "95th percentile of R", "higher", "evaluator"),
    Metric("eval/min_reward", "reward", "worst episode", "higher", "evaluator"),
    Metric("eval/max_reward", "reward", "best episode", "higher", "evaluator"),
    Metric("eval/mean_length", "control steps", "mean length of the episodes", "higher", "evaluator"),
    Metric("eval/fall_share", "–", "share of episodes that ended by termination (a fall)", "lower", "evaluator"),
    Metric("eval/forward_speed", "m/s", "mean forward speed of the torso over the episodes", "higher", "evaluator"),
    Metric(
        "eval/model_predicted_reward",
        "reward",
        "what the world model predicted for the same episodes; never a result, only a check of the model",
        "",
        "evaluator",
    ),
    Metric("perf/env_steps_per_second", "1/s", "real environment steps per second of wall time", "higher"),
    Metric("perf/epoch_seconds", "s", "wall time of one epoch, mean over the interval", "lower"),
    Metric("perf/{phase}_seconds", "s", "wall time of one phase per epoch, mean over the interval", "lower"),
    Metric("perf/peak_rss_mb", "MB", "largest resident memory of the process so far", "lower"),
    Metric("perf/peak_gpu_memory_mb", "MB", "largest memory allocated on the GPU so far", "lower"),
    Metric("system/cpu_utilization_percentage", "%", "load of all cores", "", "sampler"),
    Metric("system/system_memory_usage_megabytes", "MB", "memory in use on the machine", "", "sampler"),
    Metric("system/system_memory_usage_percentage", "%", "share of the machine's memory in use", "", "sampler"),
    Metric("system/process_memory_megabytes", "MB", "resident memory of the training process", "lower", "sampler"),
    Metric("system/disk_available_megabytes", "MB", "free space where the run's files are", "higher", "sampler"),
    Metric("system/gpu_{gpu}_utilization_percentage", "%", "load of one GPU", "", "sampler"),
    Metric("system/gpu_{gpu}_memory_usage_megabytes", "MB", "memory in use on one GPU", "", "sampler"),
)
