"""What is wrong with one table, key by key: turns the schema's errors into sentences. Knows no files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from math import isfinite

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from flowmbpo.spec import fields
from flowmbpo.spec.fields import Model
from flowmbpo.spec.problems import MAX_PROBLEMS, did_you_mean, nearest, show

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Finding:
    """One mistake in a table. `at_key`: the key itself is the mistake, not its value. `missing`: it is not there."""

    path: Path
    value: object
    message: str
    hint: str = ""
    at_key: bool = False
    missing: bool = False
    meant: str = ""  # for an unknown key: the key of the same table that was probably meant

    @property
    def key(self) -> str:
        """The dotted key, without positions inside lists."""
        return ".".join(part for part in self.path if isinstance(part, str))

    @property
    def of_key(self) -> bool:
        """Whether the place to show is that of the key, not of the value."""
        return self.at_key or self.missing


@dataclass
class CheckedTable:
    """The table without what is wrong in it, the mistakes, and the model if there were none that prevent it."""

    values: dict[str, object]
    findings: list[Finding]
    model: BaseModel | None


@dataclass(frozen=True)
class _Around:
    """What surrounds a table: the whole it is a section of, where, and what else it could be, by kind."""

    whole: Model
    path: tuple[str, ...] = ()
    kinds: Mapping[str, Model] = field(default_factory=dict)
    entry_keys: tuple[str, ...] = ()


def check_table(model: Model, table: Mapping[str, object], entry_keys: Iterable[str] = ()) -> CheckedTable:
    """All mistakes of a table. `entry_keys` are further names a user might have meant (for suggestions only)."""
    return _check(model, table, _Around(model, entry_keys=tuple(entry_keys)))


def _check(model: Model, table: Mapping[str, object], around: _Around) -> CheckedTable:
    """Sections first, each by itself, so that a mistake in one hides none in another."""
    values = dict(table)
    findings: list[Finding] = []
    sections: dict[str, BaseModel | None] = {}
    for key in model.model_fields:
        section = values.get(key)
        if (options := fields.variants(model, key)) and isinstance(section, dict):
            here = (*around.path, key)
            section, wrong_kind = _with_kind(section, options, fields.default_kind(model, key), here)
            chosen = fields.section_class(model, key, section)
            assert chosen is not None
            kinds = {} if "" in options else options
            inner = _check(chosen, section, _Around(around.whole, here, kinds))
            findings += [*wrong_kind, *inner.findings]
            values[key], sections[key] = inner.values, inner.model
    built, errors = _validate(model, values, sections)
    own = [_finding(model, values, error, around) for error in errors[: MAX_PROBLEMS + 1]]
    if not own:
        return CheckedTable(values, findings, built)
    own = _without_echoes(own)
    for finding in own:
        if finding.path == around.path:  # the table as a whole
            return CheckedTable({}, [*findings, *own], None)
        if not finding.missing:
            values.pop(str(finding.path[len(around.path)]), None)  # whole lists and tables go, not elements
    return CheckedTable(values, [*findings, *own], _validate(model, values, sections)[0])


def _validate(
    model: Model, values: Mapping[str, object], sections: Mapping[str, BaseModel | None]
) -> tuple[BaseModel | None, list[ErrorDetails]]:
    """The model of the values and of its sections, which are built already; of one that is not, nothing is said."""
    ready = {**values, **{key: built for key, built in sections.items() if key in values}}
    unbuilt = {key for key, built in sections.items() if built is None}
    try:
        return model.model_validate({key: value for key, value in ready.items() if key not in unbuilt}), []
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=True, include_input=False)
        return None, [one for one in errors if one["loc"][:1] == () or one["loc"][0] not in unbuilt]


def _with_kind(
    section: Mapping[str, object], options: Mapping[str, Model], default: str | None, path: tuple[str, ...]
) -> tuple[dict[str, object], list[Finding]]:
    """The section with a valid kind, so that its other keys can be judged too, and what was wrong with its own."""
    if "" in options:
        return dict(section), []
    kind = section.get("kind", default)
    if isinstance(kind, str) and kind in options:
        return {**section, "kind": kind}, []
    allowed = " or ".join(f'"{option}"' for option in options)
    missing = "kind" not in section
    message = f"required key is missing: {allowed}" if missing else f"must be {allowed}"
    hint = did_you_mean(kind, options) if isinstance(kind, str) else ""
    finding = Finding((*path, "kind"), section.get("kind"), message, hint, missing=missing)
    probable = nearest(kind, options) if isinstance(kind, str) else None
    if probable is None:
        probable = max(options, key=lambda option: sum(key in options[option].model_fields for key in section))
    return {**section, "kind": probable}, [finding]


def _locate(table: Mapping[str, object], loc: Iterable[str | int]) -> tuple[Path, object]:
    """Pydantic's location as our path, without tags of variants and elements that are not there, and its value."""
    path: list[str | int] = []
    value: object = table
    for part in loc:
        inner = _inside(value, part)
        if not path or inner is not None:
            path.append(part)
            value = inner
    return tuple(path), value


def _inside(values: object, part: object) -> object:
    if isinstance(values, dict):
        return values.get(part)
    if isinstance(values, list | tuple) and isinstance(part, int) and part < len(values):
        return values[part]
    return None


def _finding(owner: Model, table: dict[str, object], error: ErrorDetails, around: _Around) -> Finding:
    inner, value = _locate(table, error["loc"])
    path = (*around.path, *inner)
    if error["type"] == "extra_forbidden":
        beside: object = table
        for part in inner[:-1]:
            beside = _inside(beside, part)
        return _unknown_key(owner, path, value, beside, around)
    if error["type"] in ("value_error", "assertion_error"):  # a validator of an extension's section
        return Finding(path, value, str(error["ctx"]["error"]))
    name = str(inner[0])
    allowed = fields.allowed(owner, name)
    if error["type"] == "missing" and value is None:
        hint = f"add {name} to the table {'.'.join(around.path) or 'itself'}"
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
        hint = "leave it out if it is not meant"
        if default is not None:
            hint = f"leave it out for the default, {show(default)}"
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


def _kind_of(value: object) -> str:
    """What a value is, said so that 1, 1.0, "1" and true cannot be confused."""
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "a table"
    words = next((f"{words} " for kind, words in _KINDS.items() if isinstance(value, kind)), "")
    return words + show(value)


_KINDS = {bool: "the truth value", str: "the text", int: "the whole number", float: "the number"}  # a bool is an int


def _unknown_key(owner: Model, path: Path, value: object, beside: object, around: _Around) -> Finding:
    name = str(path[-1])
    kinds = [kind for kind, option in around.kinds.items() if name in option.model_fields]
    if kinds:
        message = f"only known where {'.'.join(around.path)}.kind is {' or '.join(map(show, kinds))}"
        return Finding(path, value, message, "remove it, or change the kind", at_key=True)
    meant = nearest(name, owner.model_fields) or ""
    if isinstance(beside, dict) and meant in beside:
        meant = ""  # it is there already
    known = [*owner.model_fields, *around.entry_keys]
    dotted = fields.dotted_keys(around.whole)
    elsewhere = [key for key in dotted if key.rsplit(".", 1)[-1] == name]
    hint = f"did you mean `{elsewhere[0]}`?" if elsewhere else did_you_mean(name, known)
    if not hint:
        leaves = {key.rsplit(".", 1)[-1]: key for key in dotted}
        match = nearest(name, leaves)
        hint = f"did you mean `{leaves[match]}`?" if match else f"known here: {', '.join(known)}"
    return Finding(path, value, "unknown key", hint, at_key=True, meant=meant)


def _without_echoes(findings: list[Finding]) -> list[Finding]:
    """A misspelt required key is one mistake, not an unknown key and a missing one."""
    meant = {(*f.path[:-1], f.meant) for f in findings if f.meant}
    return [f for f in findings if not (f.missing and f.path in meant)]
