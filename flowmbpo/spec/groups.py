"""Comparison groups: which experiments belong together and what may differ inside. Statistics live in `reports`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from flowmbpo.spec import fields
from flowmbpo.spec.identity import ABSENT, NOT_IDENTITY
from flowmbpo.spec.problems import did_you_mean, show
from flowmbpo.spec.schema import Experiment
from flowmbpo.spec.sections import Name, Section


class Group(Section):
    """Experiments that answer one question because they differ in nothing but what is asked about."""

    question: Annotated[str, Field(min_length=1, max_length=500)] = Field(description="what the comparison answers")
    members: Annotated[tuple[Name, ...], Field(min_length=2, max_length=64)] = Field(
        description="experiments; the first is the one the others are compared with"
    )
    varies: Annotated[tuple[str, ...], Field(max_length=64)] = Field(
        description="dotted keys, or whole sections, in which members may differ"
    )


@dataclass(frozen=True)
class Difference:
    """A key in which a member differs from the first although the group does not allow it."""

    member: str
    key: str
    value: object
    reference: str
    reference_value: object

    @property
    def message(self) -> str:
        return f"{_say(self.value)} here but {_say(self.reference_value)} in {self.reference}"


def known_keys() -> tuple[str, ...]:
    """What `varies` may name: the dotted keys of an experiment's identity, and its sections."""
    keys = [key for key in fields.dotted_keys(Experiment) if key.split(".", 1)[0] not in NOT_IDENTITY]
    return (*dict.fromkeys(key.split(".", 1)[0] for key in keys), *keys)


def unknown_keys(group: Group) -> Iterator[tuple[int, str, str]]:
    """Position, text and a hint for every entry of `varies` that no experiment has."""
    known = set(known_keys())
    for index, key in enumerate(group.varies):
        if key not in known:
            leaf = {name.rsplit(".", 1)[-1]: name for name in known}
            hint = f"did you mean `{leaf[key]}`?" if key in leaf else did_you_mean(key, known)
            yield index, key, hint


def allowed(key: str, varies: Iterable[str]) -> bool:
    """Whether the group lets members differ in this key."""
    return any(key == name or key.startswith(f"{name}.") for name in varies)


def forbidden_differences(group: Group, identities: Mapping[str, Mapping[str, object]]) -> Iterator[Difference]:
    """Every difference that `varies` does not name, given the `identity` of each experiment; others are passed over.

    Each key is compared with the first member that has it. Where a section's `kind` may vary, the keys that only one
    kind has come with it and need not be named, but they must agree among the members that have them.
    """
    known = {member: identities[member] for member in group.members if member in identities}
    for key in dict.fromkeys(key for values in known.values() for key in values):
        if allowed(key, group.varies):
            continue
        reference = next(member for member, values in known.items() if key in values)
        expected = known[reference][key]
        goes_with_kind = allowed(f"{key.rpartition('.')[0]}.kind", group.varies)
        for member, values in known.items():
            if (key not in values and not goes_with_kind) or values.get(key, expected) != expected:
                yield Difference(member, key, values.get(key, ABSENT), reference, expected)


def _say(value: object) -> str:
    return "absent" if value is ABSENT else show(value)
