"""What the sections of an experiment are made of: the strict base class, types of values, and what sections share.

Imports nothing of ours: extensions in other packages build on it, and `schema` on them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

PositiveInt = Annotated[int, Field(ge=1, le=1_000_000_000)]
Width = Annotated[int, Field(ge=1, le=65_536)]
Widths = Annotated[tuple[Width, ...], Field(min_length=1, max_length=16)]
Discount = Annotated[float, Field(gt=0.0, le=1.0)]
LearningRate = Annotated[float, Field(gt=0.0, le=1.0)]
Norm = Annotated[float, Field(gt=0.0, le=1e9)]
AdamBeta = Annotated[float, Field(ge=0.0, lt=1.0)]
Return = Annotated[float, Field(ge=-1e9, le=1e9)]
Hours = Annotated[float, Field(gt=0.0, le=10_000.0)]
# `words`: what error messages say instead of the pattern
Line = Annotated[
    str,
    Field(
        max_length=500,
        pattern=r"^[^\x00-\x1f\x7f]*$",
        json_schema_extra={"words": " on one line, of at most 500 characters"},
    ),
]
Name = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$",
        json_schema_extra={"words": " of 1 to 64 letters, digits and . _ + - that begins with a letter or digit"},
    ),
]
Duration = Annotated[
    str,
    Field(
        pattern=r"^([0-9]{1,3}-)?[0-9]{1,4}:[0-5][0-9]:[0-5][0-9]$",
        json_schema_extra={"words": ' such as "12:00:00" or "2-00:00:00"'},
    ),
]
GpuTypes = Annotated[
    Line,
    BeforeValidator(lambda given: ",".join(given) if isinstance(given, tuple) and all_text(given) else given),
    WithJsonSchema({"type": ["string", "array"], "items": {"type": "string"}}),
]


def all_text(values: tuple[object, ...]) -> bool:
    return all(isinstance(value, str) for value in values)


class Section(BaseModel):
    """Base of all sections: immutable, unknown keys refused, no silent conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _lists_are_tuples(cls, data: object) -> object:
        """TOML and JSON have lists only; strict mode would refuse them for tuples."""
        if not isinstance(data, dict):
            return data
        return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}


class LearnedWorldModel(Section):
    """What all world models that learn have in common: everything but the dynamics."""

    encoder: Literal["mlp", "observation"] = Field(
        "mlp",
        description="what z is: a learned latent on simplices, or the observation itself, whose change an MLP predicts",
    )
    units: Widths = Field(description="hidden widths of dynamics and reward")
    reward_units: Annotated[tuple[Width, ...], Field(max_length=16)] = Field(
        (), description="hidden widths of the reward head alone; empty for those of the dynamics"
    )
    encoder_units: Annotated[tuple[Width, ...], Field(max_length=16)] = Field(
        description='hidden widths of the encoder; empty with encoder = "observation"'
    )
    latent_dim: Width = Field(description="width of the latent state z")
    continuation_units: Annotated[tuple[Width, ...], Field(max_length=16)] = Field(
        (), description="hidden widths of the head that predicts whether the episode goes on; empty for no such head"
    )
    latent_input: Literal["raw", "standardized"] = Field(
        "raw",
        description="what all networks see of a latent on simplices: z itself, as published, or simnorm_dim z - 1, "
        "whose features have mean 0 and deviation about 1",
    )
    decoder_units: Annotated[tuple[Width, ...], Field(max_length=16)] = Field(
        (),
        description="hidden widths of the head that reconstructs the observation, so that the latent keeps what it "
        "says; empty for no such head",
    )
    step: Literal["absolute", "logit_residual"] = Field(
        "absolute",
        description="how a network reaches the next point on the simplices: SimNorm(output), as published, or "
        "SimNorm(log z + output), which starts as nearly the identity; the step of an observation is a residual anyway",
    )
    loss_states: Literal["predicted", "encoded"] = Field(
        "predicted",
        description="where the loss is taken: at the model's own predictions from the first observation, or at "
        "the encoding of each observation, as a distribution needs it",
    )
    activation: Literal["mish", "silu"] = Field("mish", description="of the hidden layers")
    simnorm_dim: Annotated[int, Field(ge=2, le=1024)] = Field(8, description="features per group of SimNorm")
    task_dim: Annotated[int, Field(ge=0, le=4096)] = Field(
        0, description="width of the task embedding; 0 for a single task"
    )
    multitask: bool = Field(False, description="whether one model serves several tasks")
    reward_head: Literal["scalar", "two_hot"] = Field("scalar", description="mean squared error, or 101 symlog bins")
