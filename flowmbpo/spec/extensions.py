"""Environments and world models of other packages: what their sections must say, and how they are found.

A package names its section in an entry point, `[project.entry-points."flowmbpo.envs"]` or `"flowmbpo.world_models"`, by
its `kind`. The module with the section is loaded with the schema, by nearly every command; what the section points to,
only where it is built. docs/extending.md shows both.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Collection
from importlib import metadata
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

from pydantic import Field

from flowmbpo.errors import UserError
from flowmbpo.spec.sections import LearnedWorldModel, Section


class EnvExtension(Section):
    """Base of an environment's section: `kind: Literal["NAME"] = "NAME"` and what a registry may say about it.

    `observation_dim` and `action_dim` may be properties. `environment` is "package.module:Class"; the class is called
    with `num_envs`, `seed`, `device` and the section's fields but `kind`, and is a `flowmbpo.envs.Env`.
    """

    MUST_SAY: ClassVar[tuple[str, ...]] = ("observation_dim", "action_dim", "environment")
    observation_dim: ClassVar[int]
    action_dim: ClassVar[int]
    environment: ClassVar[str]

    kind: str
    episode_length: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        1000, description="control steps until truncation"
    )


class WorldModelExtension(LearnedWorldModel):
    """Base of a world model's section: `kind: Literal["NAME"] = "NAME"`, the keys of all world models and its own.

    `dynamics` is "package.module:Class", a `flowmbpo.models.dynamics.Dynamics` that is called with the arguments of
    `MLPDynamics` and the fields that the section adds. `dynamics_parameters(latent_dim, action_dim)` is the number of
    its trainable parameters, which `flowmbpo show` reports without building it.
    """

    MUST_SAY: ClassVar[tuple[str, ...]] = ("dynamics", "dynamics_parameters")
    dynamics: ClassVar[str]
    evaluations_per_step: ClassVar[int] = 1  # of the network, in one control step

    kind: str

    if TYPE_CHECKING:  # a class has it or says not what it must

        def dynamics_parameters(self, latent_dim: int, action_dim: int) -> int: ...

    def own_fields(self) -> dict[str, Any]:
        return self.model_dump(exclude=set(WorldModelExtension.model_fields))


GROUPS = {"flowmbpo.envs": EnvExtension, "flowmbpo.world_models": WorldModelExtension}
Extension = TypeVar("Extension", EnvExtension, WorldModelExtension)


def extensions(group: str, base: type[Extension], own: Collection[str]) -> dict[str, type[Extension]]:
    """The sections that installed packages offer, by kind; `own` are our kinds. Raises UserError for a wrong one."""
    found: dict[str, type[Extension]] = {}
    for point in metadata.entry_points(group=group):
        section: Any = None
        wrong = ""
        if point.name in own or point.name in found:
            wrong = f"is a name of {'flowmbpo itself' if point.name in own else 'another package'} already"
        else:
            try:
                section = point.load()
                wrong = _wrong(section, point.name, base)
            except Exception as error:  # somebody else's code
                wrong = f"cannot be imported: {type(error).__name__}: {error}"
        if wrong:
            package = point.dist.name if point.dist else "an unknown package"
            message = f"{group} {point.name!r} of {package} ({point.value}) {wrong}; repair or uninstall {package}"
            raise UserError(" ".join(message.split()))
        found[point.name] = section
    return found


def _wrong(section: object, kind: str, base: type[Extension]) -> str:
    """What is wrong with a section; empty for nothing."""
    if not (isinstance(section, type) and issubclass(section, base)):
        return f"is no subclass of flowmbpo.spec.extensions.{base.__name__}"
    if missing := [name for name in base.MUST_SAY if not hasattr(section, name)]:
        return f"does not say {', '.join(missing)}"
    return "" if section.model_fields["kind"].default == kind else f'must have kind: Literal["{kind}"] = "{kind}"'


def load(section: type[EnvExtension | WorldModelExtension], reference: str) -> Any:
    """The class that a section names. Raises UserError when it cannot be imported."""
    try:
        return pkgutil.resolve_name(reference)
    except (ImportError, AttributeError, ValueError) as error:
        kind = section.model_fields["kind"].default
        raise UserError(f"{kind!r} is built by {reference}, which cannot be imported: {error}") from error


def packages() -> list[str]:
    points = [point for group in GROUPS for point in metadata.entry_points(group=group)]
    return sorted({point.dist.name for point in points if point.dist})
