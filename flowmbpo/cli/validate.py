"""`flowmbpo validate`: everything that is wrong with a registry, at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flowmbpo.cli import tables
from flowmbpo.cli.options import JsonOption, RegistryOption


def validate(
    path: Annotated[Path | None, typer.Argument(help="Registry file. Default: as for --registry.")] = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a registry and show all its problems with their lines. Exit code 0 if there are none, else 2."""
    from flowmbpo.cli.problems import print_problems
    from flowmbpo.spec.problems import RegistryError, visible
    from flowmbpo.spec.registry import find_registry, load_registry

    file = path if path is not None else registry
    try:
        found = load_registry(file)
    except RegistryError as error:
        if as_json:
            errors = [problem.as_dict() for problem in error.problems]
            tables.print_json({"valid": False, "errors": errors, "warnings": []})
        else:
            print_problems(error.problems)
        raise typer.Exit(2) from None
    if as_json:
        warnings = [problem.as_dict() for problem in found.warnings]
        tables.print_json({"valid": True, "errors": [], "warnings": warnings})
        return
    print_problems(found.warnings)
    counts = f"{len(found.names())} experiments, {len(found.groups)} groups, {len(found.references)} references"
    warned = f", {len(found.warnings)} warnings" if found.warnings else ""
    tables.out.print(
        f"{visible(str(find_registry(file)))} is valid: {counts}{warned}", markup=False, highlight=False, soft_wrap=True
    )
