"""What makes two experiments the same: flat keys, digest, differences, run names. No files, no tracking."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from operator import index
from typing import SupportsIndex

from pydantic import BaseModel

from flowmbpo.errors import UserError
from flowmbpo.spec.schema import Experiment

# Labels, resources and expectations: two experiments that differ only here are the same experiment.
NOT_IDENTITY = frozenset({"name", "aliases", "description", "family", "run_group", "expected", "resources"})

ABSENT = None  # the value of a key that the other variant of a section does not have


def flatten(spec: BaseModel) -> dict[str, object]:
    """All values by dotted key (`train.horizon`), in the order of the schema; lists are tuples."""
    flat: dict[str, object] = {}
    for key in type(spec).model_fields:
        value = getattr(spec, key)
        if isinstance(value, BaseModel):
            flat.update({f"{key}.{inner}": item for inner, item in flatten(value).items()})
        else:
            flat[key] = value
    return flat


def identity(spec: Experiment) -> dict[str, object]:
    """The flat values that make the experiment what it is, without labels, expectations and resources."""
    return {key: value for key, value in flatten(spec).items() if key.split(".", 1)[0] not in NOT_IDENTITY}


def spec_hash(spec: Experiment) -> str:
    """16 hexadecimal digits of the SHA-256 of the identity; the same on every machine and in every order of keys."""
    text = json.dumps(identity(spec), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def diff(a: Experiment, b: Experiment) -> dict[str, tuple[object, object]]:
    """The keys of the identity in which two experiments differ, with both values (None where a key is absent)."""
    return diff_values(identity(a), identity(b))


def diff_values(a: Mapping[str, object], b: Mapping[str, object]) -> dict[str, tuple[object, object]]:
    """`diff` for flat values, such as those a tracking store remembers."""
    keys = dict.fromkeys([*a, *b])
    return {key: (a.get(key, ABSENT), b.get(key, ABSENT)) for key in keys if a.get(key, ABSENT) != b.get(key, ABSENT)}


def check_seeds(seeds: Iterable[object]) -> list[int]:
    """Raises UserError for what cannot be the seeds of several runs."""
    found: list[int] = []
    for seed in seeds:
        if not isinstance(seed, SupportsIndex) or not 0 <= index(seed) < 2**31:
            raise UserError(f"seed {seed!r}: allowed are 0 to {2**31 - 1}")
        if index(seed) in found:
            raise UserError(f"seed {seed} is named twice; two equal runs prove nothing")
        found.append(index(seed))
    return found


def run_name(name: str, seed: int) -> str:
    """`NAME/seed-N`."""
    return f"{name}/seed-{seed}"
