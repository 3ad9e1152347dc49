"""`flowmbpo note` and `flowmbpo tag`: what the user has to say about a run, kept in MLflow with it."""

from __future__ import annotations

from typing import Annotated

import typer

from flowmbpo.cli import tables
from flowmbpo.cli.options import JsonOption, RunArgument, TrackingOption, parse_pairs
from flowmbpo.errors import UserError
from flowmbpo.tracking.reader import open_reader, select_run
from flowmbpo.tracking.records import USABLE_TAG, WHY_TAG


def note(
    run: RunArgument,
    text: Annotated[str, typer.Argument(help="Appended to the run's description.")],
    tracking_uri: TrackingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a note on a run: MLflow's description of it, shown by `runs`, `compare` and `report`."""
    from flowmbpo.tracking.mlflow_annotations import add_note

    if not text.strip():
        raise UserError("the note is empty; write what shall be remembered of the run")
    reader = open_reader(tracking_uri)
    found = select_run(reader.runs(), run)
    _say({"run_id": found.run_id, "name": found.run_name, "note": add_note(reader.store, found, text)}, as_json)


def tag(
    run: RunArgument,
    tags: Annotated[list[str], typer.Argument(metavar="KEY=VALUE...", help="usable=no sets the run aside.")],
    why: Annotated[str, typer.Option(help="The reason for usable=no.")] = "",
    tracking_uri: TrackingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tag a run. `usable=no --why REASON` takes it out of every comparison, which says so; `usable=yes` back in."""
    from flowmbpo.tracking.mlflow_annotations import add_tags

    given = parse_pairs("", tags, "KEY=VALUE, as in usable=no")
    usable = given.get(USABLE_TAG)
    if usable not in (None, "yes", "no"):
        raise UserError(f"usable={usable}: allowed are yes and no")
    if (usable == "no") != bool(why.strip()):
        raise UserError("--why and usable=no go together: a run is set aside for a reason that others can read")
    if usable:
        given[WHY_TAG] = why.strip()
    reader = open_reader(tracking_uri)
    found = select_run(reader.runs(), run)
    add_tags(reader.store, found, given)
    _say({"run_id": found.run_id, "name": found.run_name, "tags": {**found.user_tags, **given}}, as_json)


def _say(document: tables.Row, as_json: bool) -> None:
    if as_json:
        tables.print_json(document)
    else:
        text = document.get("note") or ", ".join(f"{key}={value}" for key, value in document["tags"].items() if value)
        tables.say(f"{document['name']}: {text}")
