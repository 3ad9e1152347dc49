"""`flowmbpo record`: transitions of a checkpoint's policy as a file that `train.pretrain` learns from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flowmbpo.cli import tables
from flowmbpo.cli.options import CheckpointOption, DeviceOption, JsonOption, RunArgument, TrackingOption, parse_list
from flowmbpo.runs import checkpoint
from flowmbpo.runs.files import check_output
from flowmbpo.tracking.mlflow_artifacts import chosen_checkpoint
from flowmbpo.tracking.reader import open_reader


def record(
    run: RunArgument,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where it goes.")],
    episodes: Annotated[int, typer.Option(min=1, max=100_000, help="Full episodes.")] = 128,
    which: CheckpointOption = "best",
    noise: Annotated[
        str, typer.Option(help="Standard deviations of the noise on the actions; the episodes take them in turn.")
    ] = "0,0.2,0.5,1",
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of the starts and the noise.")] = 0,
    device: DeviceOption = "auto",
    tracking_uri: TrackingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Record what a policy does, with a mixture of noise, for `train.pretrain`."""
    said = "a standard deviation of 0 or more, as in --noise 0,0.2,0.5,1"
    sizes = [float(size) for size in parse_list("--noise", noise, r"\d+(\.\d*)?|\.\d+", said)]
    check_output(out)
    with chosen_checkpoint(open_reader(tracking_uri), run, which) as (trained, _, folder):
        from flowmbpo.training.devices import choose_device
        from flowmbpo.training.loading import experiment_of
        from flowmbpo.training.recorded import write_recorded
        from flowmbpo.training.rollout import record_episodes

        source = checkpoint.verify(folder, "checkpoint")
        kept, result = record_episodes(source, episodes=episodes, noise=sizes, seed=seed, device=choose_device(device))
    about = {"run_id": trained.run_id, "epoch": source.epoch, "noise": noise, "seed": seed}
    write_recorded(out, kept, experiment_of(source).env, about)
    if as_json:
        tables.print_json(
            {
                "file": str(out),
                "run_id": trained.run_id,
                "epoch": source.epoch,
                "episodes": episodes,
                "transitions": kept.transitions,
                "mean_reward": result.mean_reward,
                "noise": sizes,
            }
        )
        return
    tables.say(
        f"{out}: {episodes:,} episodes with {kept.transitions:,} transitions, R {result.mean_reward:,.0f} "
        f"± {result.metrics['eval/std_reward']:,.0f} with noise"
    )
