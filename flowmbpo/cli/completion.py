"""What the shell completes: experiment names, dotted keys with their values, run ids. Never an error, never slow.

A completion that fails is silent, because its output would land in the line somebody is typing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path

import typer

Complete = Callable[[typer.Context, str], list[str]]


def _silent(function: Callable[[typer.Context, str], Iterator[str]]) -> Complete:
    @wraps(function)
    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        try:
            return [text for text in function(ctx, incomplete) if text.startswith(incomplete)]
        except Exception:  # whatever it is, a half-typed line is no place for it
            return []

    return complete


def registry_path(ctx: typer.Context) -> Path | None:
    given = ctx.params.get("registry") or os.environ.get("FLOWMBPO_REGISTRY")
    return Path(given) if given else None


@_silent
def experiment_names(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    """Names and aliases, also of a registry that has mistakes."""
    from flowmbpo.spec import document
    from flowmbpo.spec.registry import find_registry

    path = find_registry(registry_path(ctx))
    for name, table in document.parse(document.read(path), str(path)).data["experiments"].items():
        if table.get("abstract") is not True:
            yield name
            yield from table.get("aliases", [])


@_silent
def spec_keys(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    """Dotted keys for `--set`; after the equals sign, the values a key may have."""
    from flowmbpo.spec import fields
    from flowmbpo.spec.schema import Experiment

    key, equals, _ = incomplete.partition("=")
    if not equals:
        yield from (f"{name}=" for name in fields.dotted_keys(Experiment) if "." in name)
        return
    yield from (f"{key}={value}" for value in fields.choices(Experiment, key))


@_silent
def run_ids(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    """Ids of the runs in the store, newest first."""
    from flowmbpo.tracking.reader import open_reader

    uri = ctx.params.get("tracking_uri") or os.environ.get("MLFLOW_TRACKING_URI")
    for run in open_reader(uri).runs():
        yield run.run_id


@_silent
def names_and_run_ids(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    """For arguments that accept both."""
    yield from experiment_names(ctx, incomplete)
    yield from run_ids(ctx, incomplete)
