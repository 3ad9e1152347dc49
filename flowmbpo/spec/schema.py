"""The sections of an experiment, frozen and strictly typed: the only place where defaults live.

Not here: reading TOML (`document`), inheritance (`inheritance`), rules between keys (`rules`), hashing (`identity`).
Units stand in each field's description, which error messages and the JSON Schema repeat; names are those of the PWM and
TD-MPC2 papers. To add a learning choice, add a field (or a section with a `kind`) here, and a rule to `rules` if it
depends on another key: everything else follows from these classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Union

from pydantic import Field

from flowmbpo.errors import UserError
from flowmbpo.spec.extensions import EnvExtension, WorldModelExtension, extensions
from flowmbpo.spec.sections import (
    AdamBeta,
    Discount,
    Duration,
    GpuTypes,
    Hours,
    LearnedWorldModel,
    LearningRate,
    Line,
    Name,
    Norm,
    PositiveInt,
    Return,
    Section,
    Widths,
)

# --- environment -----------------------------------------------------------------------------------------------------


class AntEnvSpec(Section):
    """The DFlex Ant (37 observations, 8 actions), undisturbed by default."""

    action_dim: ClassVar[int] = 8

    kind: Literal["ant"] = "ant"
    episode_length: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        1000, description="control steps (1/60 s each) until truncation"
    )
    stochastic_init: bool = Field(True, description="random start pose and velocity")
    early_termination: bool = Field(True, description="end the episode when the torso is below 0.27 m")
    mass_matrix_interval: Annotated[int, Field(ge=1, le=16)] = Field(
        16, description="substeps between refreshes of the mass matrix"
    )
    torque_noise: Annotated[float, Field(ge=0.0, le=10.0)] = Field(
        0.0, description="deviation of the noise on every action, as a share of 200 N m"
    )
    payload: Annotated[float, Field(ge=0.0, le=1000.0)] = Field(
        0.0, description="kg, largest mass on the torso; drawn per episode from 0 to this and not observed"
    )
    action_delay: Annotated[int, Field(ge=0, le=8)] = Field(
        0, description="control steps, longest delay of an action; drawn anew at each step from 0 to this"
    )
    observation_noise: Annotated[float, Field(ge=0.0, le=10.0)] = Field(
        0.0, description="deviation of the noise on every observed number but the actions, in its own unit"
    )
    hidden_velocities: bool = Field(False, description="velocities and rates (14 of the 37 numbers) are not observed")
    observation_stack: Annotated[int, Field(ge=1, le=16)] = Field(
        1, description="last observations shown side by side, newest first"
    )

    @property
    def observation_dim(self) -> int:
        return (23 if self.hidden_velocities else 37) * self.observation_stack


class PointMassEnvSpec(Section):
    """A point mass on a line with a known best return; trains in seconds (2 observations, 1 action)."""

    observation_dim: ClassVar[int] = 2
    action_dim: ClassVar[int] = 1

    kind: Literal["pointmass"] = "pointmass"
    episode_length: Annotated[int, Field(ge=1, le=1_000_000)] = Field(50, description="control steps until truncation")


ENV_EXTENSIONS = extensions("flowmbpo.envs", EnvExtension, ("ant", "pointmass"))
if TYPE_CHECKING:
    EnvSpec = AntEnvSpec | PointMassEnvSpec | EnvExtension
else:
    EnvSpec = Annotated[
        Union[(AntEnvSpec, PointMassEnvSpec, *ENV_EXTENSIONS.values())],
        Field(discriminator="kind"),
    ]


# Velocity evaluations per substep of each ODE scheme; the schemes themselves are in `models/integrators.py`.
STAGES = {"euler": 1, "heun": 2, "rk4": 4}

if TYPE_CHECKING:
    IntegratorName = str
else:
    IntegratorName = Literal[tuple(STAGES)]


# --- world model -----------------------------------------------------------------------------------------------------


class MLPWorldModelSpec(LearnedWorldModel):
    """z' = SimNorm(MLP([z, a])), as in TD-MPC2."""

    kind: Literal["mlp"] = "mlp"


class GaussianWorldModelSpec(LearnedWorldModel):
    """z' ~ N(z + f(z, a), diag sigma(z, a)^2), on observations."""

    kind: Literal["gaussian"] = "gaussian"


class EnsembleWorldModelSpec(LearnedWorldModel):
    """MLPs that differ in their initial weights; a sample is the prediction of one of them."""

    kind: Literal["ensemble"] = "ensemble"
    members: Annotated[int, Field(ge=2, le=64)] = Field(5, description="MLPs")


class FlowWorldModelSpec(LearnedWorldModel):
    """z' by integrating a velocity field v(z, a, tau) from tau = 0 to 1."""

    kind: Literal["flow"] = "flow"
    source: Literal["state", "noise"] = Field(
        "state",
        description="where the integration starts: at the present latent, which gives one prediction, or at Gaussian "
        "noise around it, which gives samples of a distribution",
    )
    integrator: IntegratorName = Field(description="ODE scheme of one control step")
    substeps: Annotated[int, Field(ge=1, le=64)] = Field(description="integration steps per control step")
    tau_sampling: Literal["uniform", "midpoint", "early"] = Field(
        "uniform", description="tau of the matching loss; early: 0 for seven of eight, where one evaluation asks"
    )
    velocity: Literal["linear", "endpoint", "shortcut"] = Field(
        "endpoint",
        description="what the network outputs: the velocity itself, the end point on the simplex, or the end point "
        "given the length of the step too, which one long step can then reach",
    )
    objective: Literal["matching", "prediction", "both"] = Field(
        "matching",
        description="what the flow learns from: its velocity on the straight path to the next latent, the integrated "
        "prediction as an MLP does, or the sum of both",
    )


class SimulatorWorldModelSpec(Section):
    """The simulator itself: nothing is learned, and the policy's gradient runs through the physics (the Ant only)."""

    kind: Literal["simulator"] = "simulator"


WORLD_MODEL_EXTENSIONS = extensions(
    "flowmbpo.world_models", WorldModelExtension, ("mlp", "flow", "gaussian", "ensemble", "simulator")
)
LearnedWorldModelSpec = (
    MLPWorldModelSpec | FlowWorldModelSpec | GaussianWorldModelSpec | EnsembleWorldModelSpec | WorldModelExtension
)
if TYPE_CHECKING:
    WorldModelSpec = LearnedWorldModelSpec | SimulatorWorldModelSpec
else:
    WorldModelSpec = Annotated[
        Union[
            (
                MLPWorldModelSpec,
                FlowWorldModelSpec,
                GaussianWorldModelSpec,
                EnsembleWorldModelSpec,
                SimulatorWorldModelSpec,
                *WORLD_MODEL_EXTENSIONS.values(),
            )
        ],
        Field(discriminator="kind"),
    ]


# --- policy, value, learning -----------------------------------------------------------------------------------------


class ActorSpec(Section):
    """Gaussian policy on the latent, squashed by tanh."""

    units: Widths = Field((400, 200, 100), description="hidden widths")
    learning_rate: LearningRate = Field(5e-4, description="Adam step size at the start")
    grad_norm: Norm = Field(1.0, description="gradient norm above which gradients are scaled down")
    log_std_init: Annotated[float, Field(ge=-20.0, le=2.0)] = Field(-1.0, description="log sigma at the start")
    log_std_min: Annotated[float, Field(ge=-20.0, le=2.0)] = Field(-1.427, description="log sigma never falls below")
    activation: Literal["mish", "silu", "elu"] = Field("mish", description="of the hidden layers")
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
    num_envs: Annotated[int, Field(ge=1, le=1_000_000)] = Field(128, description="environments simulated side by side")
    wm_batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        1024, description="sequences of horizon + 1 observations per model update"
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
        1, description="epochs of data before the first model update; the policy does not change before it"
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
        "continue", description="a collapse (R below half of its peak for 20 points) is told, or also ends the run"
    )

    @property
    def sequence_length(self) -> int:
        """Transitions per sequence of a model update."""
        return self.wm_sequence_length or self.horizon


class EvaluationSpec(Section):
    """Evaluation in the real environment with the deterministic policy."""

    episodes: Annotated[int, Field(ge=1, le=1_000_000)] = Field(128, description="full episodes, all at once")
    interval: PositiveInt = Field(500, description="epochs between evaluations; the best one keeps its checkpoint")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(10_000, description="seed of the evaluation environments")


# --- what surrounds a run --------------------------------------------------------------------------------------------


class ExpectedSpec(Section):
    """What the author expects, written down before the run."""

    peak_reward: tuple[Return, Return] | None = Field(None, description="R, from and to")
    stability: Literal["high", "medium", "low"] | None = Field(None, description="how steady the end will be")
    hours: tuple[Hours, Hours] | None = Field(None, description="wall time on the named hardware, from and to")
    confidence: Literal["high", "medium", "low"] | None = Field(None, description="of this expectation")
    note: Annotated[str, Field(max_length=2000)] = Field("", description="what to look out for")


class ResourcesSpec(Section):
    """What a cluster job of this experiment asks for."""

    gpu: GpuTypes = Field("L40S", description="GPU type as the cluster names it, or a list of those that will do")
    gpus: Annotated[int, Field(ge=0, le=64)] = Field(1, description="GPUs; 0 for a CPU job")
    gpu_memory_gb: Annotated[float, Field(gt=0.0, le=10_000.0)] = Field(48.0, description="memory of one such GPU, GB")
    cpus: Annotated[int, Field(ge=1, le=4096)] = Field(4, description="CPU cores")
    memory_gb: Annotated[float, Field(gt=0.0, le=100_000.0)] = Field(128.0, description="host memory, GB")
    time_limit: Duration = Field("12:00:00", description="H:MM:SS or D-HH:MM:SS")
    account: Line = Field("", description="Slurm account; rather in your own cluster.toml than in a shared registry")
    partition: Line = Field("", description="Slurm partition; empty for the cluster's default")
    constraint: Line = Field("", description="Slurm constraint on the node's features")
    options: Annotated[dict[Line, Line | int | bool], Field(max_length=32)] = Field(
        {}, description="further sbatch options, as in {exclude = 'node07'}"
    )


class Experiment(Section):
    """One resolved experiment: everything that makes two runs comparable; seeds are not part of it."""

    name: Name = Field(description="name in the registry")
    aliases: Annotated[tuple[Name, ...], Field(max_length=16)] = Field((), description="other names for it")
    description: Annotated[str, Field(max_length=2000)] = Field("", description="one sentence for `flowmbpo list`")
    family: Line = Field("", description="nominal size, as in '48M'")
    run_group: Line = Field("", description="name for runs that belong together")
    env: EnvSpec = Field(AntEnvSpec(), description="what is asked of the agent")
    world_model: WorldModelSpec = Field(description="encoder, dynamics and reward")
    actor: ActorSpec = Field(ActorSpec(), description="policy")
    critic: CriticSpec = Field(CriticSpec(), description="values")
    train: TrainSpec = Field(description="the learning loop")
    evaluation: EvaluationSpec = Field(EvaluationSpec(), description="how a policy is judged")
    expected: ExpectedSpec = Field(ExpectedSpec(), description="what the author expects")
    resources: ResourcesSpec = Field(ResourcesSpec(), description="what a cluster job asks for")

    @property
    def latent_dim(self) -> int:
        """Width of what the policy sees: the latent, or the observation where the model is the simulator."""
        model = self.world_model
        return self.env.observation_dim if isinstance(model, SimulatorWorldModelSpec) else model.latent_dim
