"""What the schema says about itself: sections, variants, dotted keys, and what a key allows in words.

Reads the classes of `schema`; holds no rule of its own, so a new field or section needs no change here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel

Model = type[BaseModel]
Schema = Mapping[str, Any]  # JSON Schema


@cache
def variants(model: Model, key: str) -> Mapping[str, Model]:
    """The classes a section may have, by `kind`; without kinds the one entry is named ""; none for a plain value."""
    field = model.model_fields.get(key)
    if field is None:
        return {}
    if field.discriminator is not None:
        options = get_args(field.annotation) or (field.annotation,)
        return {str(option.model_fields["kind"].default): option for option in options}
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
        return {"": field.annotation}
    return {}


def default_kind(model: Model, key: str) -> str | None:
    """The kind of a section that an experiment leaves out, or None if it must be named."""
    default = model.model_fields[key].default
    return getattr(default, "kind", None)


def section_class(model: Model, key: str, table: Mapping[str, object]) -> Model | None:
    """The class that describes the table, chosen by its kind; None for plain values and unknown kinds."""
    options = variants(model, key)
    if "" in options:
        return options[""]
    kind = table.get("kind", default_kind(model, key)) if options else None
    return options.get(kind) if isinstance(kind, str) else None


@cache
def dotted_keys(model: Model) -> tuple[str, ...]:
    """All dotted keys of plain values, over all variants, in the order of the schema."""
    return tuple(dict.fromkeys(_dotted_keys(model)))


def _dotted_keys(model: Model) -> Iterator[str]:
    for key in model.model_fields:
        options = variants(model, key)
        if not options:
            yield key
        for option in options.values():
            for inner in _dotted_keys(option):
                yield f"{key}.{inner}"


def values_with_defaults(model: Model, table: Mapping[str, object]) -> dict[str, object]:
    """Values by dotted key: those of the table, else the defaults; required keys that are missing are left out."""
    found: dict[str, object] = {}
    for key, field in model.model_fields.items():
        options = variants(model, key)
        if not options:
            if key in table:
                found[key] = table[key]
            elif not field.is_required():
                found[key] = field.default
            continue
        section = table.get(key, None if field.is_required() else {})
        if isinstance(section, dict) and (chosen := section_class(model, key, section)):
            found.update({f"{key}.{k}": v for k, v in values_with_defaults(chosen, section).items()})
    return found


@cache
def properties(model: Model) -> Mapping[str, Schema]:
    """The JSON Schema of each field of the class."""
    found: Mapping[str, Schema] = model.model_json_schema().get("properties", {})
    return found


def allowed(model: Model, key: str) -> str:
    """What the key allows, in words with its unit: `a whole number from 1 to 64 (substeps)`."""
    schema = properties(model).get(key, {})
    options = variants(model, key)
    text = f"a table [{key}]" if options else _in_words(schema)
    description = schema.get("description")
    return f"{text} ({description})" if description else text


def _in_words(schema: Schema, plural: bool = False) -> str:
    if "anyOf" in schema:
        return _in_words(next(option for option in schema["anyOf"] if option.get("type") != "null"), plural)
    if "enum" in schema or "const" in schema:
        values = schema.get("enum") or [schema["const"]]
        quoted = [f'"{value}"' for value in values]
        return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"
    kind = schema.get("type")
    if kind in ("integer", "number"):
        noun = "whole number" if kind == "integer" else "number"
        return (f"{noun}s" if plural else f"a {noun}") + _range(schema)
    if kind == "boolean":
        return "true or false"
    if kind == "array":
        return _list_in_words(schema)
    if kind == "object":
        return "a table"
    return ("texts" if plural else "a text") + schema.get("words", "")


def _list_in_words(schema: Schema) -> str:
    if "prefixItems" in schema:
        items = schema["prefixItems"]
        return f"a list of {len(items)} {_in_words(items[0], plural=True)}"
    least, most = schema.get("minItems", 0), schema.get("maxItems")
    size = f"{least} to {most} " if most is not None else ""
    return f"a list of {size}{_in_words(schema.get('items', {}), plural=True)}"


def _range(schema: Schema) -> str:
    if "minimum" in schema and "maximum" in schema:
        return f" from {_figure(schema['minimum'])} to {_figure(schema['maximum'])}"
    bounds = [f"{word} {_figure(schema[name])}" for name, word in _BOUNDS.items() if name in schema]
    return " " + " and ".join(bounds) if bounds else ""


_BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}


def _figure(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.0f}" if value == int(value) else f"{value:g}"


def choices(model: Model, key: str) -> tuple[str, ...]:
    """The values that a dotted key of few values may have, as they are written after `--set key=`; else nothing."""
    head, _, rest = key.partition(".")
    options = variants(model, head)
    if rest:
        return tuple(dict.fromkeys(value for option in options.values() for value in choices(option, rest)))
    schema = properties(model).get(head, {})
    if schema.get("type") == "boolean":
        return ("true", "false")
    values = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
    return tuple(str(value) for value in values)
