"""`flowmbpo reproduce`: what a run needs to be trained again, and whether doing so gives the same numbers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from flowmbpo.cli import tables
from flowmbpo.cli.options import SELECTS_RUNS, JsonOption, TrackingOption
from flowmbpo.errors import UserError
from flowmbpo.tracking.reader import open_reader, select_run

if TYPE_CHECKING:
    from flowmbpo.training.reproduction import Outcome, Recipe

_SHOWN = 10  # points that differ


def reproduce(
    run_id: Annotated[
        str,
        typer.Argument(metavar="RUN", help="Run id, its beginning, or NAME/seed-N, of this directory.", **SELECTS_RUNS),
    ],
    check: Annotated[bool, typer.Option("--check", help="Train it again and compare every point.")] = False,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="With --check: train although the code has changed.")
    ] = False,
    tracking_uri: TrackingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a run needs to be trained again and what differs here; `--check` trains it and compares every point.

    The repetition has a temporary store, so it is no further seed of the experiment. Exit code 1 when it differs.
    """
    from flowmbpo.training.signals import plain_interrupt

    with plain_interrupt():
        from flowmbpo.cli.progress import watcher
        from flowmbpo.training.reproduction import recipe_of, repeat

        if "/" in run_id:  # NAME/seed-N, which only the store knows
            run_id = select_run(open_reader(tracking_uri).runs(), run_id).run_id
        recipe = recipe_of(run_id)
        if not as_json:
            _show(recipe)
        if check and recipe.changes and not accept_changes:
            raise UserError(
                "the code is not that of the run:\n  " + "\n  ".join(recipe.changes) + "\nGo back to it, or train all "
                "the same with --accept-changes"
            )
        outcome = repeat(recipe, watcher()) if check else None
    if as_json:
        tables.print_json({**recipe.document(), **(_document(outcome) if outcome else {})})
    elif outcome:
        _show_outcome(outcome)
    if outcome and not outcome.equal:
        sys.exit(1)


def _show(recipe: Recipe) -> None:
    known = recipe.document()
    rows = [[key, known[key]] for key in ("run_id", "name", "seed", "epochs", "threads", "device")]
    tables.print_table("Needed", ["what", "value"], [*rows, *([key, text] for key, text in recipe.code.items())])
    for title, lines in (("differs here", recipe.changes), ("cannot be compared", recipe.unknown)):
        for line in lines:
            tables.say(f"{title}: {line}")


def _document(outcome: Outcome) -> dict[str, object]:
    keys = ("metric", "step", "then", "now")
    return {
        "equal": outcome.equal,
        "points": outcome.points,
        "checkpoints": outcome.checkpoints,
        "different": [dict(zip(keys, entry, strict=True)) for entry in outcome.different],
        "different_checkpoints": outcome.different_checkpoints,
    }


def _show_outcome(outcome: Outcome) -> None:
    counted = f"{outcome.points:,} points and the weights of {outcome.checkpoints} checkpoint(s)"
    if outcome.equal:
        tables.out.print(f"equal to the bit: {counted}", highlight=False)
        return
    if outcome.different:
        shown = outcome.different[:_SHOWN]
        tables.print_table("First points that differ", ["metric", "env steps", "then", "now"], shown)
    tables.out.print(
        f"different: {len(outcome.different):,} of {outcome.points:,} points, weights of "
        f"{len(outcome.different_checkpoints)} of {outcome.checkpoints} checkpoint(s)",
        highlight=False,
    )
