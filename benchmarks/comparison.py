"""How long `flowmbpo compare` takes by the number of runs in the store.

    python benchmarks/comparison.py --runs 10 100 1000

Each run has 300 points of ten metrics, twenty seeds to an experiment, in one sqlite store; all experiments of the store
are compared. Seconds are those of the whole command, its imports included. Beside it stands what MLflow's own client
needs to read the same curves, one request per run.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric

POINTS, SEEDS, STEPS = 300, 20, 2048
REWARD = "train/episode_reward"
METRICS = (REWARD, *(f"model/latent_error_{n}" for n in range(1, 10)))


def fill(client: MlflowClient, experiment: str, runs: int) -> list[str]:
    """Runs `e0/seed-0`, `e0/seed-1`, ...; returns the names of the experiments."""
    noise = random.Random(runs)
    for number in range(runs):
        name, seed = f"e{number // SEEDS}", number % SEEDS
        tags = {"flowmbpo.name": name, "flowmbpo.seed": str(seed)}
        run = client.create_run(experiment, start_time=0, run_name=f"{name}/seed-{seed}", tags=tags).info.run_id
        for metric in METRICS:
            points = [Metric(metric, 10 * i + noise.random(), 1000 * i, STEPS * i) for i in range(1, POINTS + 1)]
            client.log_batch(run, metrics=points)
        client.set_terminated(run, "FINISHED", 1000 * POINTS)
    return [f"e{number}" for number in range(-(-runs // SEEDS))]


def measure(runs: int) -> tuple[float, float]:
    """Seconds of `flowmbpo compare` and of MLflow's client."""
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{Path(folder) / 'mlflow.db'}"
        client = MlflowClient(tracking_uri=uri)
        experiment = client.create_experiment("flowmbpo", artifact_location=folder)
        names = fill(client, experiment, runs)
        command = [sys.executable, "-c", "from flowmbpo.cli.app import main; main()", "compare", *names, "--json"]
        environment = {**os.environ, "MLFLOW_TRACKING_URI": uri}
        begin = time.perf_counter()
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        ours = time.perf_counter() - begin
        begin = time.perf_counter()
        found = client.search_runs([experiment], max_results=runs)
        for run in found:
            client.get_metric_history(run.info.run_id, REWARD)
        assert len(found) == runs
        return ours, time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[10, 100, 1000])
    print("| runs | points | flowmbpo compare, s | MLflow's client, one curve of each run, s |\n|---|---|---|---|")
    for runs in parser.parse_args().runs:
        ours, theirs = measure(runs)
        print(f"| {runs:,} | {runs * POINTS * len(METRICS):,} | {ours:.1f} | {theirs:.1f} |", flush=True)


if __name__ == "__main__":
    main()
