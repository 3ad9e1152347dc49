"""What a registry may say. Loaded by nearly every command, so it imports no torch."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from flowmbpo.spec.extensions import EnvExtension, WorldModelExtension


class PendulumSection(EnvExtension):
    """A pendulum to swing up and hold (3 observations, 1 action)."""

    observation_dim: ClassVar[int] = 3
    action_dim: ClassVar[int] = 1
    environment: ClassVar[str] = "flowmbpo_pendulum.env:Pendulum"

    kind: Literal["pendulum"] = "pendulum"
    torque: Annotated[float, Field(gt=0.0, le=100.0)] = Field(2.0, description="N m, the largest; 5 lifts it at once")


class LinearSection(WorldModelExtension):
    """z' = z + W [z, a] + b, on observations."""

    dynamics: ClassVar[str] = "flowmbpo_pendulum.dynamics:Linear"

    kind: Literal["linear"] = "linear"
    bias: bool = Field(True, description="whether there is a b")

    def dynamics_parameters(self, latent_dim: int, action_dim: int) -> int:
        return latent_dim * (latent_dim + action_dim + self.bias)

    @model_validator(mode="after")
    def _only_observations(self) -> "LinearSection":
        if self.encoder != "observation":
            raise ValueError('kind = "linear" needs encoder = "observation": a line leaves the simplices of a latent')
        return self
