"""The sections of an experiment about learning: policy, values, the training loop and its evaluation.

Part of `schema`, which describes what a section is and imports these.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from flowmbpo.errors import UserError
from flowmbpo.spec.sections import AdamBeta, Discount, LearningRate, Norm, PositiveInt, Section, Widths


class ActorSpec(Section):
    """Gaussian policy on the latent, squashed by tanh."""

    units: Widths = Field((400, 200, 100), description="hidden widths")
    learning_rate: LearningRate = Field(5e-4, description="Adam step size at the start")
    grad_norm: Norm = Field(1.0, description="gradient norm above which gradients are scaled down")
    rollout_grad_limit: Annotated[float, Field(ge=0.0, le=1e9)] = Field(
        0.0,
        description="a rollout's gradient with respect to its actions is scaled down to this many times the median of "
        "the update's rollouts, so that a few in stiff contact do not outweigh all others; 0: no limit",
    )
    log_std_init: Annotated[float, Field(ge=-20.0, le=2.0)] = Field(-1.0, description="log sigma at the start")
    log_std_min: Annotated[float, Field(ge=-20.0, le=2.0)] = Field(-1.427, description="log sigma never falls below")
    activation: Literal["mish", "silu", "elu"] = Field("mish", description="of the hidden layers")
    symmetric: bool = Field(
        False,
        description="whether the policy acts in the mirror as its own mirror image, left and right exchanged; "
        "for an Ant whose observation is the latent",
    )
    updates: Annotated[int, Field(ge=1, le=1000)] = Field(
        1, description='actor updates per epoch; more than one with imagination = "from_visited" only'
    )
    imagined_batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        512, description='imagined rollouts per update with imagination = "from_visited"'
    )
    recent_steps: Annotated[int, Field(ge=2, le=1_000_000)] = Field(
        128, description='newest control steps whose states imagination = "from_visited" starts from'
    )
    reacts: bool = Field(
        False,
        description='whether with imagination = "alongside" the gradient includes how the policy reacts to the states '
        "that its actions lead to, as in SHAC; with the other forms it always does",
    )
    average_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.0, description="per epoch, of the averaged policy that is evaluated; 0 evaluates the newest"
    )


class CriticSpec(Section):
    """Ensemble of state values; the minimum is used."""

    units: Widths = Field((400, 200), description="hidden widths")
    ensemble: Annotated[int, Field(ge=1, le=64)] = Field(3, description="members")
    learning_rate: LearningRate = Field(5e-4, description="Adam step size at the start")
    grad_norm: Norm = Field(100.0, description="gradient norm above which gradients are scaled down")
    passes: Annotated[int, Field(ge=1, le=10_000)] = Field(8, description="passes over the epoch's latents")
    minibatches: Annotated[int, Field(ge=1, le=100_000)] = Field(4, description="minibatches per pass")
    activation: Literal["mish", "silu", "elu"] = Field("mish", description="of the hidden layers")
    target_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.0,
        description="per pass, of the slowly moving critic that gives the value targets and the actor's last value, as "
        "in SHAC; 0 uses the critic itself",
    )
    targets: Literal["imagined", "real"] = Field(
        "imagined",
        description="TD(lambda) from imagined rewards, or from the real rewards and ends of the epoch's steps",
    )
    states: Literal["encoded", "predicted"] = Field(
        "encoded",
        description="where real targets are learned: at the encoded observations, or also at the states that the model "
        "predicts for them from the epoch's first, which is where the actor asks",
    )


class PretrainSpec(Section):
    """Training of the world model on recorded transitions before the first real step."""

    data: Annotated[str, Field(min_length=1, max_length=4096)] = Field(
        description="file that `flowmbpo record` wrote, from the working directory"
    )
    updates: Annotated[int, Field(ge=1, le=100_000_000)] = Field(
        description="world-model updates on it, instead of wm_first_updates"
    )


def check_recorded(pretrain: PretrainSpec | None) -> None:
    """Raises UserError where the file is missing."""
    if pretrain and not Path(pretrain.data).is_file():
        data = pretrain.data
        raise UserError(f"train.pretrain.data: there is no file {data}; `flowmbpo record RUN --out {data}` makes one")


class TrainSpec(Section):
    """One epoch: rollout of `horizon` steps in `num_envs` environments, then actor, critic and world-model updates."""

    horizon: Annotated[int, Field(ge=1, le=1024)] = Field(16, description="control steps of one imagined rollout")
    allow_short_horizon: bool = Field(False, description="accept a horizon below 16 on purpose")
    imagination: Literal["alongside", "from_visited", "real"] = Field(
        "alongside",
        description="imagined rollouts run beside the real one, open loop (published PWM), or start from visited "
        "states while the real environment is driven closed loop; or the real rollout itself has gradients (SHAC; the "
        "simulator only)",
    )
    max_epochs: PositiveInt = Field(description="epochs of training; the learning-rate schedule ends here")
    starts: Annotated[int, Field(ge=1, le=1000)] = Field(
        1,
        description="how many learners, from different weights, begin the run one after the other; the one that earned "
        "most per step in its last epoch goes on",
    )
    start_epochs: PositiveInt = Field(1000, description="epochs of each of several starts")
    num_envs: Annotated[int, Field(ge=1, le=1_000_000)] = Field(128, description="environments simulated side by side")
    wm_batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        1024, description="sequences of wm_sequence_length + 1 observations per model update"
    )
    wm_sequence_length: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        None, description="transitions per sequence of a model update; the horizon when not given"
    )
    wm_updates: Annotated[int, Field(ge=1, le=1_000_000)] = Field(8, description="world-model updates per epoch")
    wm_first_updates: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        1000, description="world-model updates, once, in the first epoch from wm_first_epoch on that has data"
    )
    wm_first_epoch: PositiveInt = Field(
        1, description="epoch of the wm_first_updates; before it there are wm_updates as in any other"
    )
    pretrain: PretrainSpec | None = Field(
        None, description="training of the world model on recorded transitions before the first real step"
    )
    warmup_epochs: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        1,
        description="epochs of data before the first model update on them; the policy does not change before it, "
        "unless pretrain has trained the model",
    )
    wm_learning_rate: LearningRate = Field(3e-4, description="Adam step size at the start")
    wm_grad_norm: Norm = Field(20.0, description="gradient norm above which gradients are scaled down")
    gamma: Discount = Field(0.99, description="discount per control step")
    td_lambda: Annotated[float, Field(ge=0.0, le=1.0)] = Field(0.95, description="lambda of the value targets")
    wm_reward_weight: Annotated[float, Field(gt=0.0, le=1e6)] = Field(
        0.0625, description="of the reward's loss (and the continuation's) beside that of the dynamics; published: 1/16"
    )
    wm_decoder_weight: Annotated[float, Field(gt=0.0, le=1e6)] = Field(
        1.0, description="of the loss of the reconstructed observation beside that of the dynamics"
    )
    wm_step_discount: Discount = Field(
        0.99, description="of the losses of each further predicted step; TD-MPC2 calls it rho and has 0.5"
    )
    wm_adam_betas: tuple[AdamBeta, AdamBeta] = Field(
        (0.9, 0.999), description="decay of Adam's two averages, world model"
    )
    adam_betas: tuple[AdamBeta, AdamBeta] = Field(
        (0.7, 0.95), description="decay of Adam's two averages, actor and critic"
    )
    regression: Literal["centered", "raw"] = Field(
        "centered",
        description="what untrained heads of reward and value predict: the running mean of what they are fitted to, "
        "or 0; the task is the same",
    )
    lr_schedule: Literal["linear", "constant"] = Field("linear", description="decay of every learning rate")
    final_learning_rate: LearningRate = Field(1e-5, description="where the linear schedule ends")
    reward_scaling: Literal["running_std", "none"] = Field(
        "running_std", description="rewards are divided by their running deviation, never shifted"
    )
    normalize_observations: bool = Field(False, description="running mean and deviation of every observation")
    replay_capacity: PositiveInt = Field(1_000_000, description="transitions kept")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of the networks' matrix products")
    checkpoint_interval: PositiveInt = Field(500, description="epochs between numbered checkpoints")
    log_interval: PositiveInt = Field(10, description="epochs between logged points")
    nonfinite_limit: PositiveInt = Field(10, description="refused (non-finite) updates before the run fails")
    on_collapse: Literal["continue", "stop"] = Field(
        "continue", description="a collapse (R below half of its peak for 20 points) is reported, or also ends the run"
    )

    @property
    def sequence_length(self) -> int:
        return self.wm_sequence_length or self.horizon

    @property
    def resting_epochs(self) -> int:
        """At the end of this epoch the model's many first updates are done, and the policy begins to change."""
        return 1 if self.pretrain else max(self.warmup_epochs, self.wm_first_epoch)

    @property
    def learner_epochs(self) -> int:
        """Epochs of one learner: of all but those of the other starts."""
        return self.max_epochs - (self.starts - 1) * self.start_epochs


class EvaluationSpec(Section):
    """Evaluation in the real environment with the deterministic policy."""

    episodes: Annotated[int, Field(ge=1, le=1_000_000)] = Field(128, description="full episodes, all at once")
    interval: PositiveInt = Field(500, description="epochs between evaluations; the best one keeps its checkpoint")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(10_000, description="seed of the evaluation environments")
