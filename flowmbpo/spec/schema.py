"""The sections of an experiment, frozen and strictly typed: the only place where defaults live.

Not here: reading TOML (`document`), inheritance (`inheritance`), rules between keys (`rules`), hashing (`identity`).
Units stand in each field's description, which error messages and the JSON Schema repeat; names are those of the PWM and
TD-MPC2 papers. To add a choice, add a field (or a section with a `kind`) here or in `learning`, and a rule if it
depends on another key: everything else follows from these classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Union

from pydantic import Field

from flowmbpo.spec.extensions import EnvExtension, WorldModelExtension, extensions
from flowmbpo.spec.learning import ActorSpec, CriticSpec, EvaluationSpec, TrainSpec
from flowmbpo.spec.sections import (
    Duration,
    GpuTypes,
    Hours,
    LearnedWorldModel,
    Line,
    Name,
    Return,
    Section,
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
_ENVS: tuple[Any, ...] = (AntEnvSpec, PointMassEnvSpec, *ENV_EXTENSIONS.values())
ENV_SECTIONS: dict[str, Any] = {section.model_fields["kind"].default: section for section in _ENVS}
if TYPE_CHECKING:
    EnvSpec = AntEnvSpec | PointMassEnvSpec | EnvExtension
else:
    EnvSpec = Annotated[Union[(*_ENVS,)], Field(discriminator="kind")]


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
