"""The JSON Schema of a registry file, so that editors complete and check it while one types.

Looser than `registry` on purpose: what an entry may inherit it need not write, and rules between keys are not in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowmbpo.spec import fields
from flowmbpo.spec.fields import Model
from flowmbpo.spec.groups import Group, known_keys
from flowmbpo.spec.references import ReferenceTable
from flowmbpo.spec.schema import Experiment

_NAMES = {"pattern": r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$"}
_Schema = dict[str, Any]
_OURS = ("title", "words", "$ref", "discriminator", "oneOf")  # keys of Pydantic's schema that editors need not see


def registry_schema() -> _Schema:
    """The schema of the whole file, without references to other files."""
    entry = _table(Experiment, required=False)
    entry["properties"].pop("name")
    entry["properties"] = {
        "extends": {"type": "string", "description": "the one entry from which everything else is taken"},
        "abstract": {"type": "boolean", "description": "exists only to be extended", "default": False},
        **entry["properties"],
    }
    group = _table(Group, required=True)
    group["properties"]["varies"]["items"]["enum"] = list(known_keys())
    references = []
    for kind, option in fields.variants(ReferenceTable, "reference").items():
        reference = _table(option, required=True) | {"title": kind}
        reference["properties"]["kind"] = {"const": kind}
        reference["required"] = ["kind", *reference["required"]]
        references.append(reference)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "flowmbpo registry of experiments",
        "type": "object",
        "additionalProperties": False,
        "required": ["experiments"],
        "properties": {
            "experiments": _tables(entry, "experiments by name"),
            "groups": _tables(group, "comparison groups by name"),
            "references": _tables({"oneOf": references}, "results of others by name"),
        },
    }


def _tables(entry: Mapping[str, object], description: str) -> _Schema:
    return {
        "type": "object",
        "description": description,
        "propertyNames": _NAMES,
        "additionalProperties": dict(entry),
    }


def _table(model: Model, required: bool) -> _Schema:
    properties = {key: _property(model, key, required) for key in model.model_fields}
    needed = [key for key, field in model.model_fields.items() if field.is_required()]
    table: _Schema = {"type": "object", "additionalProperties": False, "properties": properties}
    if model.__doc__:
        table["description"] = model.__doc__.strip().splitlines()[0]
    return table | ({"required": needed} if required else {})


def _property(model: Model, key: str, required: bool) -> _Schema:
    options = fields.variants(model, key)
    if not options:
        return _clean(fields.properties(model)[key])
    if "" in options:
        return _table(options[""], required)
    # All kinds in one table: which keys go with which kind is said in words, because an entry may inherit its kind.
    properties: _Schema = {"kind": {"enum": list(options), "description": "which variant of the section"}}
    for option in options.values():
        for inner in option.model_fields:
            if inner not in properties:
                properties[inner] = _property(option, inner, required)
                owners = [f'"{kind}"' for kind, other in options.items() if inner in other.model_fields]
                if len(owners) < len(options):
                    said = properties[inner].get("description", "")
                    properties[inner]["description"] = f"{said} (only with kind = {' or '.join(owners)})".strip()
    description = model.model_fields[key].description or ""
    return {"type": "object", "description": description, "additionalProperties": False, "properties": properties}


def _clean(schema: Any) -> Any:
    if isinstance(schema, Mapping):
        return {key: _clean(value) for key, value in schema.items() if key not in _OURS}
    if isinstance(schema, list | tuple):
        return [_clean(item) for item in schema]
    return schema
