"""A process that tracks a run, for tests that kill it or start several: FOLDER SEED POINTS PAUSE REST
(seconds between two points, and after the last one)."""

import sys
import time
from pathlib import Path

from flowmbpo.tracking.run_tracker import RunDescription, start_run
from flowmbpo.tracking.store import resolve_store

folder, seed, points = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
pause, rest = float(sys.argv[4]), float(sys.argv[5])
spec = {"train": {"horizon": 16, "num_envs": 128, "max_epochs": points}}
with start_run(
    resolve_store(None, folder), RunDescription("short", seed, spec, "h", "cpu"), folder / "runs"
) as tracker:
    print(tracker.run_id, flush=True)
    for epoch in range(1, points + 1):
        tracker.log({"train/epoch": float(epoch), "train/episode_reward": seed + epoch / 10}, step=epoch * 2048)
        if epoch == points:
            print("logged", flush=True)
        time.sleep(rest if epoch == points else pause)
