"""`flowmbpo render`: one episode of a checkpoint as an interactive 3D page, a film or an animated picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowmbpo.cli import tables
from flowmbpo.cli.options import CheckpointOption, DeviceOption, RegistryOption, RunArgument, TrackingOption
from flowmbpo.runs.files import check_output
from flowmbpo.tracking.mlflow_artifacts import chosen_checkpoint
from flowmbpo.tracking.reader import open_reader

if TYPE_CHECKING:
    from flowmbpo.runs.episode import Episode

SUFFIXES = (".html", ".mp4", ".gif")


def render(
    run: RunArgument,
    out: Annotated[Path, typer.Option("--out", metavar="FILE.html|.mp4|.gif", help="Where it goes.")],
    which: CheckpointOption = "best",
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**63 - 1, help="Of the start. Default: that of the evaluation.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many control steps. Default: a full episode.")
    ] = None,
    device: DeviceOption = "auto",
    registry: RegistryOption = None,
    tracking_uri: TrackingOption = None,
) -> None:
    """Show what a policy does: one episode in the real simulator as HTML (3D, interactive), MP4 or GIF."""
    check_output(out, SUFFIXES)
    with chosen_checkpoint(open_reader(tracking_uri), run, which) as (_, _, folder):
        from flowmbpo.training.devices import choose_device
        from flowmbpo.training.rollout import episode_of_checkpoint

        episode = episode_of_checkpoint(folder, choose_device(device), seed, steps)
    _write(episode, out)
    tables.say(f"{out}: {episode.title}, R {episode.cumulative_reward[-1]:,.1f} in {episode.steps:,} steps")


def _write(episode: Episode, out: Path) -> None:
    suffix = out.suffix.lower()
    if suffix == ".html":
        from flowmbpo.reports.replay import write_replay_html

        write_replay_html(episode, out)
        return
    from rich.progress import Progress

    from flowmbpo.reports.replay.film import write_gif, write_mp4

    write = write_mp4 if suffix == ".mp4" else write_gif
    with Progress(console=tables.err, disable=not tables.on_terminal(tables.err)) as progress:
        task = progress.add_task(f"painting {out.name}", total=None)
        write(episode, out, lambda done, total: progress.update(task, completed=done, total=total))
