"""`flowmbpo export`: a policy as the folder of a Hugging Face model, or every logged point as one table."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowmbpo.cli import tables
from flowmbpo.cli.options import SELECTS_RUNS, TrackingOption
from flowmbpo.errors import UserError, WorkFailed
from flowmbpo.tracking.reader import Reader, open_reader, select_runs

if TYPE_CHECKING:
    import pandas as pd


def export(
    selectors: Annotated[
        list[str],
        typer.Argument(metavar="RUN|NAME...", help="One run with --out, else runs.", **SELECTS_RUNS),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="New folder for the policy, as Hugging Face has them.")
    ] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="With --out: the policy as policy.onnx too.")] = False,
    as_csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="All points as CSV.")] = None,
    parquet: Annotated[Path | None, typer.Option(metavar="FILE", help="All points as Parquet.")] = None,
    tracking_uri: TrackingOption = None,
) -> None:
    """Share a result: the best policy with its model card (`--out`), or every point that was logged."""
    if not (out or as_csv or parquet):
        raise UserError("say what to write: --out DIR for the policy, --csv FILE or --parquet FILE for all points")
    if out and len(selectors) > 1:
        raise UserError("--out takes one run; export each run to a folder of its own")
    if onnx and not out:
        raise UserError("--onnx writes policy.onnx into the folder of --out DIR; name one")
    if onnx and not (find_spec("onnx") and find_spec("onnxscript")):
        raise UserError("PyTorch's exporter needs two packages: pip install 'flowmbpo[onnx]'")
    reader = open_reader(tracking_uri)
    if out:
        _export_policy(reader, selectors[0], out, onnx)
    if as_csv or parquet:
        frame = _points(reader, selectors)
        try:
            if as_csv:
                frame.to_csv(as_csv, index=False)
            if parquet:
                frame.to_parquet(parquet, index=False)
        except OSError as error:
            file = error.filename or as_csv or parquet
            raise WorkFailed(f"{file} cannot be written: {error.strerror or error}") from None
        tables.say(f"{len(frame):,} points: {', '.join(str(path) for path in (as_csv, parquet) if path)}")


def _export_policy(reader: Reader, selector: str, out: Path, onnx: bool) -> None:
    from flowmbpo.reports.model_folder import write_model_folder
    from flowmbpo.tracking.mlflow_artifacts import chosen_checkpoint

    with chosen_checkpoint(reader, selector, "best") as (run, found, folder):
        names = write_model_folder(run, found, folder, out)
        if onnx:
            from flowmbpo.models.onnx_export import write_onnx
            from flowmbpo.models.standalone_policy import Policy

            write_onnx(Policy(folder), out / "policy.onnx")
            names.append("policy.onnx")
    tables.say(f"{out}: {', '.join(names)}")


def _points(reader: Reader, selectors: list[str]) -> pd.DataFrame:
    """Columns name, seed, run_id, metric, step (environment steps), seconds (since the run's start), value."""
    chosen = select_runs(reader.runs(), selectors)
    frame = reader.curves(chosen, sorted({name for run in chosen for name in run.metrics}))
    ids = frame["run_id"].astype(str)
    frame.insert(0, "name", ids.map({run.run_id: run.name for run in chosen}))
    frame.insert(1, "seed", ids.map({run.run_id: run.seed for run in chosen}))
    frame["time"] = frame["time"] - ids.map({run.run_id: run.start_time for run in chosen})
    return frame.rename(columns={"time": "seconds"})
