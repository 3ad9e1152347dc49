"""What is wrong with one table, key by key: turns the schema's verdict into sentences. Knows no files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import reduce
from math import isfinite
from typing import Any

from pydantic import BaseModel, ValidationError

from flowmbpo.spec import fields
from flowmbpo.spec.fields import Model
from flowmbpo.spec.problems import MAX_PROBLEMS, did_you_mean, nearest, show

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Finding:
    """One mistake in a table. `at_key`: the key itself is the mistake, not its value. `missing`: it is not there."""

    path: Path
    value: Any
    message: str
    hint: str = ""
    at_key: bool = False
    missing: bool = False
    meant: str = ""  # for an unknown key: the key of the same table that was probably meant

    @property
    def key(self) -> str:
        """The dotted key, without positions inside lists."""
        return ".".join(part for part in self.path if isinstance(part, str))


@dataclass
class Diagnosis:
    """The table without what is wrong in it, the mistakes, and the model if there were none that prevent it."""

    values: dict[str, Any]
    findings: list[Finding]
    model: BaseModel | None


def diagnose(model: Model, table: Mapping[str, Any], entry_keys: Iterable[str] = ()) -> Diagnosis:
    """All mistakes of a table. `entry_keys` are further names a user might have meant (for suggestions only)."""
    findings: list[Finding] = []
    values = _choose_kinds(model, table, findings)
    built, errors = _validate(model, values)
    if built is not None and not findings:
        return Diagnosis(values, findings, built)
    for error in errors[: MAX_PROBLEMS + 1]:
        findings.append(_finding(model, values, error, tuple(entry_keys)))
    findings = _without_echoes(findings)
    for finding in findings:
        # A wrong kind has already been replaced by the one that was probably meant; whole lists go, not elements.
        if not finding.missing and finding.path[-1] != "kind":
            _remove(values, finding.path)
    built, _ = _validate(model, values)
    return Diagnosis(values, findings, built)


def _validate(model: Model, values: dict[str, Any]) -> tuple[BaseModel | None, list[Any]]:
    try:
        return model.model_validate(values), []
    except ValidationError as error:
        return None, list(error.errors(include_url=False, include_context=True, include_input=False))


def _choose_kinds(model: Model, table: Mapping[str, Any], findings: list[Finding]) -> dict[str, Any]:
    """A copy in which every section has a valid kind, so that its other keys can be judged too."""
    values = dict(table)
    for key in model.model_fields:
        options = fields.variants(model, key)
        section = values.get(key)
        if not options or not isinstance(section, dict):
            continue
        section = dict(section)
        if "" not in options:
            kind = section.get("kind", fields.default_kind(model, key))
            if not (isinstance(kind, str) and kind in options):
                allowed = " or ".join(f'"{option}"' for option in options)
                missing = "kind" not in section
                message = f"required key is missing: {allowed}" if missing else f"must be {allowed}"
                hint = did_you_mean(kind, options) if isinstance(kind, str) else ""
                findings.append(Finding((key, "kind"), section.get("kind"), message, hint, missing=missing))
                kind = _probable_kind(options, kind, section)
            section["kind"] = kind
        chosen = fields.section_class(model, key, section)
        assert chosen is not None
        inner: list[Finding] = []
        values[key] = _choose_kinds(chosen, section, inner)
        findings.extend(replace(f, path=(key, *f.path)) for f in inner)
    return values


def _probable_kind(options: Mapping[str, Model], kind: Any, section: Mapping[str, Any]) -> str:
    meant = nearest(kind, options) if isinstance(kind, str) else None
    if meant is not None:
        return meant
    return max(options, key=lambda option: sum(key in options[option].model_fields for key in section))


def _locate(model: Model, values: Any, loc: tuple[Any, ...]) -> tuple[Path, Model, str, Any]:
    """Pydantic's location as our path (without tags of variants), the class and name of the field, and its value."""
    path: list[str | int] = []
    owner, field, in_field = model, "", False
    rest = list(loc)
    while rest:
        part = rest.pop(0)
        found = _inside(values, part)
        if in_field and found is None:
            continue  # the tag of a variant inside a field, or an element that is not there
        path.append(part)
        options = {} if in_field else fields.variants(owner, str(part))
        if not in_field:
            field = str(part)
        values = found
        if options and isinstance(values, dict) and rest:
            if "" not in options:
                rest.pop(0)
            if rest:
                owner = fields.section_class(owner, field, values) or owner
        elif not options:
            in_field = True
    return tuple(path), owner, field, values


def _inside(values: Any, part: Any) -> Any:
    if isinstance(values, dict):
        return values.get(part)
    if isinstance(values, list | tuple) and isinstance(part, int) and part < len(values):
        return values[part]
    return None


def _finding(model: Model, values: dict[str, Any], error: Any, entry_keys: tuple[str, ...]) -> Finding:
    path, owner, name, value = _locate(model, values, error["loc"])
    if error["type"] == "extra_forbidden":
        beside = reduce(_inside, path[:-1], values)
        return _unknown_key(model, owner, path, value, beside, entry_keys)
    if error["type"] in ("value_error", "assertion_error"):  # a validator of an extension's section
        return Finding(path, value, str(error["ctx"]["error"]))
    allowed = fields.allowed(owner, name)
    if error["type"] == "missing" and value is None:
        hint = f"add {name} to the table {'.'.join(str(part) for part in path[:-1]) or 'itself'}"
        return Finding(path, None, f"required key is missing: {allowed}", hint, missing=True)
    hint = ""
    message = f"must be {allowed}, not {_kind_of(value)}"
    choices = fields.properties(owner).get(name, {}).get("enum")
    if choices and isinstance(value, str):
        message, hint = f"must be {allowed}", did_you_mean(value, choices)
    elif error["type"] in _RANGE_ERRORS or (isinstance(value, str) and error["type"].startswith("string")):
        message = f"must be {allowed}"
    elif isinstance(value, str) and error["type"].endswith("_type"):
        hint = _unquoted(value)
    elif error["type"] == "int_type" and isinstance(value, float) and value == value // 1:
        hint = f"write {value:.0f} without the decimal point"
    if not hint and not owner.model_fields[name].is_required() and not fields.variants(owner, name):
        default = owner.model_fields[name].default
        hint = (
            "leave it out if it is not meant" if default is None else f"leave it out for the default, {show(default)}"
        )
    return Finding(path, value, message, hint)


_RANGE_ERRORS = {
    "greater_than",
    "greater_than_equal",
    "less_than",
    "less_than_equal",
    "too_long",
    "too_short",
    "int_parsing_size",
}


def _unquoted(value: str) -> str:
    """How a text that looks like a number or a truth value is written in TOML."""
    text = value.strip().lower()
    meant = text if text in ("true", "false") else ""
    readings: tuple[Callable[[str], float], ...] = (float, int)
    for reading in readings:
        with suppress(ValueError, OverflowError):
            number = reading(text)
            meant = repr(number) if isfinite(number) else ""
    if meant == value.strip():
        return f"write {meant} without quotation marks" if meant else ""
    return f"write {meant}" if meant else ""


def _kind_of(value: Any) -> str:
    """What a value is, said so that 1, 1.0, "1" and true cannot be confused."""
    if isinstance(value, bool):
        return f"the truth value {show(value)}"
    if isinstance(value, str):
        return f"the text {show(value)}"
    if isinstance(value, int):
        return f"the whole number {show(value)}"
    if isinstance(value, float):
        return f"the number {show(value)}"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "a table"
    return show(value)


def _unknown_key(
    model: Model, owner: Model, path: Path, value: Any, beside: Mapping[str, Any], entry_keys: tuple[str, ...]
) -> Finding:
    name, section = str(path[-1]), [str(part) for part in path[:-1]]
    for kind, option in _siblings(model, section).items():
        if name in option.model_fields and option is not owner:
            message = f'only known where {".".join(section)}.kind = "{kind}"'
            return Finding(path, value, message, "remove it, or change the kind", at_key=True)
    meant = nearest(name, owner.model_fields) or ""
    if meant in beside:
        meant = ""  # it is there already
    known = list(owner.model_fields) + (list(entry_keys) if not section else [])
    elsewhere = [key for key in fields.dotted_keys(model) if key.rsplit(".", 1)[-1] == name]
    hint = f"did you mean `{elsewhere[0]}`?" if elsewhere else did_you_mean(name, known)
    if not hint:
        leaves = {key.rsplit(".", 1)[-1]: key for key in fields.dotted_keys(model)}
        match = nearest(name, leaves)
        hint = f"did you mean `{leaves[match]}`?" if match else f"known here: {', '.join(known)}"
    return Finding(path, value, "unknown key", hint, at_key=True, meant=meant)


def _siblings(model: Model, section: list[str]) -> Mapping[str, Model]:
    if len(section) != 1:
        return {}
    options = fields.variants(model, section[0])
    return {} if "" in options else options


def _without_echoes(findings: list[Finding]) -> list[Finding]:
    """A misspelt required key is one mistake, not an unknown key and a missing one."""
    meant = {(*f.path[:-1], f.meant) for f in findings if f.meant}
    return [f for f in findings if not (f.missing and f.path in meant)]


def _remove(values: dict[str, Any], path: Path) -> None:
    """Take a key out of nested tables; of a list, the whole list."""
    names = [part for part in path if isinstance(part, str)]
    table: Any = values
    for name in names[:-1]:
        table = table.get(name) if isinstance(table, dict) else None
    if isinstance(table, dict):
        table.pop(names[-1], None)
