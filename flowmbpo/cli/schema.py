"""`flowmbpo schema`: the JSON Schema of the registry, for editors."""

from __future__ import annotations

from flowmbpo.cli import tables


def schema() -> None:
    """Print the JSON Schema of registry files.

    Write it beside a registry of your own (flowmbpo schema > experiments.schema.json) and begin the registry with the
    line `#:schema ./experiments.schema.json`: editors with a TOML extension (Even Better TOML, taplo) then complete
    and check while you type.
    """
    from flowmbpo.spec.json_schema import registry_schema

    tables.print_json(registry_schema())
