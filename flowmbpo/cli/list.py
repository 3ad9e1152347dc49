"""`flowmbpo list`: the registry as a design table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flowmbpo.cli import tables
from flowmbpo.cli.options import JsonOption, RegistryOption

if TYPE_CHECKING:
    from flowmbpo.spec.registry import Registry

_WIDE_ONLY = ("units", "encoder", "schedule", "task dim")  # left out on a terminal too narrow for them
_WIDE = 180


def list_experiments(registry: RegistryOption = None, as_json: JsonOption = False) -> None:
    """Show the experiments of the registry: the design table."""
    from flowmbpo.spec.registry import load_registry

    found = load_registry(registry)
    rows = [_row(found, name) for name in found.names()]
    if as_json:
        tables.print_json(rows)
        return
    wide = not tables.on_terminal(tables.out) or tables.out.width >= _WIDE
    tables.show(rows, False, {head: cell for head, cell in _COLUMNS.items() if wide or head not in _WIDE_ONLY})
    tables.say("size: nominal, of the family; built: parameters of encoder, dynamics and reward head")


def _row(registry: Registry, name: str) -> dict[str, object]:
    from flowmbpo.spec.parameters import count_parameters

    spec = registry.resolve(name).spec
    counts = count_parameters(spec)
    model, train = spec.world_model, spec.train
    return {
        "name": name,
        "aliases": list(spec.aliases),
        "description": spec.description,
        "run_group": spec.run_group,
        "env": spec.env.kind,
        "world_model": model.kind,
        "nominal_params": spec.family or None,
        "params": counts.world_model,
        "params_total": counts.total,
        "units": list(getattr(model, "units", ())),
        "encoder_units": list(getattr(model, "encoder_units", ())),
        "latent_dim": spec.latent_dim,
        "task_dim": getattr(model, "task_dim", 0),
        "integrator": getattr(model, "integrator", None),
        "substeps": getattr(model, "substeps", None),
        "wm_batch_size": train.wm_batch_size,
        "max_epochs": train.max_epochs,
        "horizon": train.horizon,
        "lr_schedule": train.lr_schedule,
        "expected": spec.expected.model_dump(mode="json"),
    }


def _widths(widths: Sequence[int]) -> str | None:
    if len(widths) > 2 and len(set(widths)) == 1:
        return f"{widths[0]} ×{len(widths)}"
    return ", ".join(map(str, widths)) or None  # None: no such network


def _range(pair: list[float] | None) -> str | None:
    if pair is None:
        return None
    low, high = (f"{value:,g}" for value in pair)
    return f"about {low}" if low == high else f"{low}–{high}"


_COLUMNS: tables.Columns = {
    "experiment": lambda row: f"{row['name']} ({', '.join(row['aliases'])})" if row["aliases"] else row["name"],
    "model": "world_model",
    "size": "nominal_params",
    "built": "params",
    "units": lambda row: _widths(row["units"]),
    "encoder": lambda row: _widths(row["encoder_units"]),
    "latent": "latent_dim",
    "integrator": "integrator",
    "substeps": "substeps",
    "wm batch": "wm_batch_size",
    "epochs": "max_epochs",
    "horizon": "horizon",
    "schedule": "lr_schedule",
    "task dim": "task_dim",
    "expected R": lambda row: _range(row["expected"]["peak_reward"]),
    "stability": lambda row: row["expected"]["stability"],
    "hours": lambda row: _range(row["expected"]["hours"]),
}
