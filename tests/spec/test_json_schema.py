"""The committed JSON Schema is current, complete, and accepts the shipped registry."""

import json
import tomllib
from pathlib import Path
from typing import Any

from flowmbpo.spec import fields
from flowmbpo.spec.json_schema import registry_schema
from flowmbpo.spec.schema import Experiment

REPOSITORY = Path(__file__).resolve().parents[2]
COMMITTED = REPOSITORY / "docs" / "experiments.schema.json"


def test_the_committed_schema_is_current():
    assert json.loads(COMMITTED.read_text()) == registry_schema(), "run: flowmbpo schema > docs/experiments.schema.json"


def test_the_registry_refers_to_it():
    first = (REPOSITORY / "experiments.toml").read_text().splitlines()[0]
    assert first == "#:schema ./docs/experiments.schema.json"
    assert (REPOSITORY / first.removeprefix("#:schema ")).resolve() == COMMITTED


def test_it_knows_every_key():
    entry = registry_schema()["properties"]["experiments"]["additionalProperties"]["properties"]
    for key in fields.dotted_keys(Experiment):
        if key != "name":
            head, _, rest = key.partition(".")
            assert head in entry
            assert not rest or rest in entry[head]["properties"]


def accepts(schema: dict[str, Any], value: Any) -> bool:
    """The part of JSON Schema that ours uses."""
    if "anyOf" in schema or "oneOf" in schema:
        fitting = [accepts(option, value) for option in schema.get("anyOf", schema.get("oneOf"))]
        return any(fitting) if "anyOf" in schema else sum(fitting) == 1
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "const" in schema:
        return bool(value == schema["const"])
    kinds = {
        "object": dict,
        "array": list,
        "string": str,
        "null": type(None),
        "boolean": bool,
        "integer": int,
        "number": (int, float),
    }
    kind = schema.get("type")
    if isinstance(kind, list):
        return any(accepts({**schema, "type": one}, value) for one in kind)
    if kind and (not isinstance(value, kinds[kind]) or (isinstance(value, bool) and kind != "boolean")):
        return False
    if kind == "object":
        known = schema.get("properties", {})
        others = schema.get("additionalProperties", True)
        if any(key not in value for key in schema.get("required", [])):
            return False
        return all(
            accepts(known[key], inner) if key in known else isinstance(others, dict) and accepts(others, inner)
            for key, inner in value.items()
        )
    if kind == "array":
        return all(accepts(schema.get("items", {}), item) for item in value)
    return (
        schema.get("minimum", float("-inf")) <= value <= schema.get("maximum", float("inf"))
        if kind
        in (
            "integer",
            "number",
        )
        else True
    )


def test_it_accepts_the_shipped_registry_and_refuses_mistakes():
    registry = tomllib.loads((REPOSITORY / "experiments.toml").read_text())
    assert accepts(registry_schema(), registry)
    train = registry["experiments"]["5M-baseline"]["train"]
    for key, value in {"horizn": 16, "horizon": "16", "gamma": 2}.items():
        train[key] = value
        assert not accepts(registry_schema(), registry)
        del train[key]
    assert accepts(registry_schema(), registry)
