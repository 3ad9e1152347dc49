"""What a search may vary: read from a TOML file, checked by the registry's rules, suggested by Optuna."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

from flowmbpo.data_types import JSON, Document
from flowmbpo.errors import UserError
from flowmbpo.spec.identity import flatten
from flowmbpo.spec.registry import Registry
from flowmbpo.spec.schema import Experiment

if TYPE_CHECKING:
    from optuna import Trial

_FORMS = ({"choices"}, {"low", "high"}, {"low", "high", "log"}, {"low", "high", "step"})


class Form(TypedDict, total=False):
    """What a key may be: one of `choices`, or a number from `low` to `high`."""

    choices: list[JSON]
    low: float
    high: float
    step: float
    log: bool


Space: TypeAlias = Mapping[str, Form]


def read_space(path: Path, registry: Registry, name: str, overrides: Sequence[str]) -> Space:
    """The search space of a TOML file, its ends and choices validated by the registry's rules.

    Raises UserError for its form and for values that the experiment may not have, all mistakes at once.
    """
    try:
        space = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"search space {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"search space {path} is not valid TOML: {error}") from None
    if not space:
        raise UserError(f"{path} names nothing to search")
    mistakes: list[UserError] = []
    for key, form in space.items():
        try:
            _check(path, key, form, lambda one: registry.resolve(name, with_values(overrides, one)).spec)
        except UserError as error:
            mistakes.append(error)
    if len(mistakes) > 1:
        raise UserError("\n".join(map(str, mistakes)))
    if mistakes:
        raise mistakes[0]
    return space


def _check(path: Path, key: str, form: Any, experiment: Callable[[Document], Experiment]) -> None:
    """Raises UserError unless `experiment` may have what `form` says for `key`; ends become what the registry makes of
    them."""
    if not isinstance(form, dict) or set(form) not in _FORMS:
        raise UserError(
            f'{path}: "{key}" must be {{ choices = [1, 2] }} or {{ low = 1e-4, high = 1e-2, log = true }}'
            ' or { low = 1, high = 9, step = 2 }; a key with a dot stands in quotation marks: "train.wm_updates"'
        )
    values = form["choices"] if "choices" in form else [form["low"], form["high"]]
    if not isinstance(values, list) or not values or ("low" in form and not all(map(_is_number, values))):
        raise UserError(f"{path}: {key} has no values: choices is a list, low and high are numbers")
    if ("low" in form and not form["low"] < form["high"]) or (form.get("log") and form["low"] <= 0):
        raise UserError(f"{path}: {key} needs low < high, and low > 0 where log = true")
    found = [flatten(experiment({key: value})).get(key) for value in values]
    if "low" in form:
        form["low"], form["high"] = found  # 0 to 1 for a real number are not just these two
    step, whole = form.get("step", 1), isinstance(found[0], int)
    if not _is_number(step) or not 0 < step < math.inf or (whole and not isinstance(step, int)):
        raise UserError(f"{path}: {key} needs a step above 0, a whole one for whole numbers")
    if not isinstance(form.get("log", True), bool):
        raise UserError(f"{path}: {key} needs log = true or log = false")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def suggest(trial: Trial, key: str, form: Form) -> JSON:
    """A value for `key`; the same again for a trial that has one."""
    if "choices" in form:
        texts = [json.dumps(choice) for choice in form["choices"]]  # a choice may be a list, which Optuna does not take
        return json.loads(trial.suggest_categorical(key, texts))
    low, high, step, log = form["low"], form["high"], form.get("step"), form.get("log", False)
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(key, low, high, step=int(step or 1), log=log)
    return trial.suggest_float(key, low, high, step=step, log=log)


def decoded(space: Space, params: Mapping[str, Any]) -> Document:
    """Optuna's values as the registry has them."""
    return {key: json.loads(value) if "choices" in space[key] else value for key, value in params.items()}


def with_values(overrides: Sequence[str], params: Mapping[str, JSON]) -> list[str]:
    """`--set` of the command, and these values."""
    return [*overrides, *(f"{key}={json.dumps(value)}" for key, value in params.items())]
