"""The sections of an experiment, frozen and strictly typed: the only place where defaults live.

Not here: reading TOML, inheritance and line numbers (`registry`), rules between sections (`rules`), hashing (`identity`).
Units stand in each field's description; names are those of the PWM and TD-MPC2 papers.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0.0, le=1.0)]
LearningRate = Annotated[float, Field(gt=0.0, le=1.0)]


class Section(BaseModel):
    """Base of all sections: immutable, unknown keys refused, no silent conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


# --- environment -----------------------------------------------------------------------------------------------------


class AntEnvSpec(Section):
    """The DFlex Ant (37 observations, 8 actions)."""

    kind: Literal["ant"] = "ant"
    episode_length: PositiveInt = Field(1000, description="control steps (1/60 s each) until truncation")
    stochastic_init: bool = Field(True, description="random start pose and velocity")
    early_termination: bool = Field(True, description="end the episode when the torso is below 0.27 m")
    mass_matrix_interval: Annotated[int, Field(ge=1, le=16)] = Field(
        16, description="substeps between refreshes of the mass matrix"
    )


class PointMassEnvSpec(Section):
    """A point mass on a plane with a known best return; trains in seconds."""

    kind: Literal["pointmass"] = "pointmass"
    episode_length: PositiveInt = Field(50, description="control steps until truncation")


EnvSpec = Annotated[AntEnvSpec | PointMassEnvSpec, Field(discriminator="kind")]


# --- world model -----------------------------------------------------------------------------------------------------


class _WorldModelBase(Section):
    units: tuple[PositiveInt, ...] = Field(description="hidden widths of dynamics and reward")
    encoder_units: tuple[PositiveInt, ...] = Field(description="hidden widths of the encoder")
    latent_dim: PositiveInt = Field(description="width of the latent state z")
    simnorm_dim: Annotated[int, Field(ge=2)] = Field(8, description="group size of SimNorm")
    task_dim: Annotated[int, Field(ge=0)] = Field(0, description="width of the task embedding; 0 iff single task")
    multitask: bool = Field(False, description="whether one model serves several tasks")
    reward_head: Literal["scalar", "two_hot"] = Field("scalar", description="mean squared error, or 101 symlog bins")


class MLPWorldModelSpec(_WorldModelBase):
    """z' = SimNorm(MLP([z, a])), as in TD-MPC2."""

    kind: Literal["mlp"] = "mlp"


class FlowWorldModelSpec(_WorldModelBase):
    """z' by integrating a velocity field v(z, a, tau) from tau = 0 to 1."""

    kind: Literal["flow"] = "flow"
    integrator: Literal["euler", "heun", "rk4"] = Field(description="ODE scheme of one control step")
    substeps: Annotated[int, Field(ge=1, le=64)] = Field(description="integration steps per control step")
    tau_sampling: Literal["uniform", "midpoint"] = Field("uniform", description="tau of the matching loss")
    velocity: Literal["linear", "endpoint"] = Field(
        "endpoint", description="what the network outputs: the velocity itself, or the end point on the simplex"
    )


WorldModelSpec = Annotated[MLPWorldModelSpec | FlowWorldModelSpec, Field(discriminator="kind")]


# --- policy, value, learning -----------------------------------------------------------------------------------------


class ActorSpec(Section):
    """Gaussian policy on the latent, squashed by tanh."""

    units: tuple[PositiveInt, ...] = Field((400, 200, 100), description="hidden widths")
    learning_rate: LearningRate = 5e-4
    grad_norm: Annotated[float, Field(gt=0)] = Field(1.0, description="clipping norm")
    log_std_init: float = -1.0
    log_std_min: float = -1.427


class CriticSpec(Section):
    """Ensemble of state values; the minimum is used."""

    units: tuple[PositiveInt, ...] = Field((400, 200), description="hidden widths")
    ensemble: PositiveInt = Field(3, description="members")
    learning_rate: LearningRate = 5e-4
    grad_norm: Annotated[float, Field(gt=0)] = Field(100.0, description="clipping norm")
    passes: PositiveInt = Field(8, description="passes over the epoch's latents")
    minibatches: PositiveInt = Field(4, description="minibatches per pass")


class TrainSpec(Section):
    """One epoch: rollout of `horizon` steps in `num_envs` environments, then actor, critic and world-model updates."""

    horizon: PositiveInt = Field(16, description="control steps of one imagined rollout")
    allow_short_horizon: bool = Field(False, description="accept a horizon below 16 on purpose")
    max_epochs: PositiveInt = Field(description="epochs of training; the learning-rate schedule ends here")
    num_envs: PositiveInt = Field(128, description="environments simulated side by side")
    wm_batch_size: PositiveInt = Field(1024, description="sequences of horizon + 1 observations per model update")
    wm_updates: PositiveInt = Field(8, description="world-model updates per epoch")
    wm_first_updates: PositiveInt = Field(1000, description="world-model updates in the first epoch that has data")
    wm_learning_rate: LearningRate = 3e-4
    wm_grad_norm: Annotated[float, Field(gt=0)] = Field(20.0, description="clipping norm")
    gamma: Fraction = Field(0.99, description="discount per control step")
    td_lambda: Annotated[float, Field(ge=0.0, le=1.0)] = Field(0.95, description="lambda of the value targets")
    adam_betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.7, 0.95)
    lr_schedule: Literal["linear", "constant"] = Field("linear", description="decay of every learning rate")
    final_learning_rate: LearningRate = Field(1e-5, description="where the linear schedule ends")
    replay_capacity: PositiveInt = Field(1_000_000, description="transitions kept")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of the networks' matrix products")
    checkpoint_interval: PositiveInt = Field(500, description="epochs between numbered checkpoints")
    log_interval: PositiveInt = Field(10, description="epochs between logged points")
    nonfinite_limit: PositiveInt = Field(10, description="refused (non-finite) updates before the run fails")


class EvaluationSpec(Section):
    """Evaluation in the real environment with the deterministic policy."""

    episodes: PositiveInt = Field(128, description="full episodes, all at once")
    interval: PositiveInt = Field(500, description="epochs between evaluations; the best one keeps its checkpoint")
    seed: Annotated[int, Field(ge=0)] = Field(10_000, description="seed of the evaluation environments")


# --- what surrounds a run --------------------------------------------------------------------------------------------


class ExpectedSpec(Section):
    """What the author expects, written down before the run."""

    peak_reward: tuple[float, float] | None = Field(None, description="R, from and to")
    stability: Literal["high", "medium", "low"] | None = None
    hours: tuple[float, float] | None = Field(None, description="wall time on the named hardware, from and to")
    confidence: Literal["high", "medium", "low"] | None = None
    note: str = ""


class ResourcesSpec(Section):
    """What a cluster job of this experiment asks for."""

    gpu: str = Field("L40S", description="GPU type as the cluster names it; empty for any")
    gpus: Annotated[int, Field(ge=0)] = 1
    gpu_memory_gb: Annotated[float, Field(gt=0)] = Field(48.0, description="memory of one such GPU, GB")
    cpus: PositiveInt = Field(4, description="CPU cores")
    memory_gb: Annotated[float, Field(gt=0)] = Field(128.0, description="host memory, GB")
    time_limit: str = Field(
        "12:00:00", pattern=r"^(\d+-)?\d{1,3}:[0-5]\d:[0-5]\d$", description="H:MM:SS or D-HH:MM:SS"
    )
    account: str = Field("", description="Slurm account; rather in your own cluster.toml than in a shared registry")
    partition: str = Field("", description="Slurm partition; empty for the cluster's default")
    constraint: str = Field("", description="Slurm constraint on the node's features")
    options: dict[str, str | int | bool] = Field({}, description="further sbatch options, as in {exclude = 'node07'}")


class Experiment(Section):
    """One resolved experiment: everything that makes two runs comparable, and nothing else (seeds are not part of it)."""

    name: str
    aliases: tuple[str, ...] = ()
    description: str = ""
    family: str = Field("", description="nominal size, as in '48M'")
    run_group: str = Field("", description="the user's name for runs that belong together")
    env: EnvSpec = AntEnvSpec()
    world_model: WorldModelSpec
    actor: ActorSpec = ActorSpec()
    critic: CriticSpec = CriticSpec()
    train: TrainSpec
    evaluation: EvaluationSpec = EvaluationSpec()
    expected: ExpectedSpec = ExpectedSpec()
    resources: ResourcesSpec = ResourcesSpec()
