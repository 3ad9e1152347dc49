"""`flowmbpo show`: one resolved experiment with the origin of every value, or the difference between two."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flowmbpo.cli import tables
from flowmbpo.cli.completion import experiment_names
from flowmbpo.cli.options import JsonOption, NameArgument, RegistryOption, SetOption

if TYPE_CHECKING:
    from flowmbpo.spec.registry import Registry, ResolvedExperiment
    from flowmbpo.spec.schema import Experiment

_LABELS = ("name", "aliases", "description")  # what differs by nature


def show(
    name: NameArgument,
    other: Annotated[
        str | None, typer.Argument(help="Another one: show only what differs.", autocompletion=experiment_names)
    ] = None,
    overrides: SetOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a resolved experiment: every value and its origin, parameters, memory and work; or how two differ."""
    from flowmbpo.cli.problems import print_problems
    from flowmbpo.spec.registry import load_registry

    found = load_registry(registry)
    resolved = found.resolve(name, overrides or ())
    if other is not None:
        _show_difference(resolved.spec, found.resolve(other, overrides or ()).spec, as_json)
        return
    if as_json:
        tables.print_json(_document(found, resolved))
        return
    _show_one(found, resolved)
    print_problems(resolved.warnings)


def _document(registry: Registry, resolved: ResolvedExperiment) -> dict[str, object]:
    from flowmbpo.spec.estimates import estimate
    from flowmbpo.spec.identity import spec_hash
    from flowmbpo.spec.parameters import count_parameters

    spec = resolved.spec
    return {
        **spec.model_dump(mode="json"),
        "spec_hash": spec_hash(spec),
        "params": count_parameters(spec).as_dict(),
        "estimate": estimate(spec).as_dict(),
        "groups": list(registry.groups_of(spec.name)),
        "origins": {
            key: {"entry": origin.entry, "file": origin.file, "line": origin.line}
            for key, origin in resolved.origins.items()
        },
        "warnings": [problem.as_dict() for problem in resolved.warnings],
    }


def _show_one(registry: Registry, resolved: ResolvedExperiment) -> None:
    from flowmbpo.spec.estimates import estimate
    from flowmbpo.spec.identity import flatten, spec_hash
    from flowmbpo.spec.parameters import count_parameters
    from flowmbpo.spec.problems import show as written

    spec = resolved.spec
    rows = [
        (key, "–" if value is None else written(value), resolved.origins[key]) for key, value in flatten(spec).items()
    ]
    tables.print_table(f"{spec.name}  (spec {spec_hash(spec)})", ["key", "value", "from"], rows)
    counts = count_parameters(spec).as_dict()
    nominal = f", nominal {spec.family}" if spec.family else ""
    tables.print_table(f"Parameters{nominal}", ["part", "count"], counts.items())
    cost = estimate(spec)
    costs = [
        ("GPU memory, GB", cost.device_gb or None),
        ("host memory, GB", cost.host_gb),
        ("of it: activations kept for gradients, GB", cost.activations_gb),
        ("of it: weights and optimiser, GB", cost.weights_gb),
        ("of it: replay, GB", cost.replay_gb),
        ("work per epoch, GFLOP", cost.epoch_gflop),
        ("of it: rollout and actor, GFLOP", cost.actor_gflop),
        ("of it: critic, GFLOP", cost.critic_gflop),
        ("of it: world model, GFLOP", cost.world_model_gflop),
        ("environment steps per epoch", cost.env_steps),
        ("dynamics evaluations per epoch (states)", cost.dynamics_evaluations),
    ]
    tables.print_table("Estimated cost", ["what", "estimate"], costs)
    groups = registry.groups_of(spec.name)
    if groups:
        tables.print_table(
            "Comparison groups", ["group", "question"], [(name, group.question) for name, group in groups.items()]
        )


def _show_difference(a: Experiment, b: Experiment, as_json: bool) -> None:
    from flowmbpo.spec.identity import NOT_IDENTITY, diff_values, flatten
    from flowmbpo.spec.parameters import count_parameters
    from flowmbpo.spec.problems import show as written

    found = {
        key: pair for key, pair in diff_values(flatten(a), flatten(b)).items() if key.split(".", 1)[0] not in _LABELS
    }
    counts = {
        f"params.{part}": (count, count_parameters(b).as_dict()[part])
        for part, count in count_parameters(a).as_dict().items()
        if count != count_parameters(b).as_dict()[part]
    }
    same = all(key.split(".", 1)[0] in NOT_IDENTITY for key in found)
    if as_json:
        tables.print_json({"a": a.name, "b": b.name, "same_experiment": same, "difference": found, "params": counts})
        return
    rows = [(key, *("–" if value is None else written(value) for value in pair)) for key, pair in found.items()]
    rows += [(key, f"{x:,}", f"{y:,}") for key, (x, y) in counts.items()]
    if rows:
        tables.print_table("Differences", ["key", a.name, b.name], rows)
    if same:
        tables.say("They differ in nothing that a run depends on.")
