"""Stands for `flowmbpo run` in tests of jobs: `stand_in_training.py MODE [RUN_ID]` in the working directory.

Makes a run that carries the job's tags and, when told to stop, writes the state of one more epoch. Modes: `waits`,
`ends`, `fails`, `killed`, `stuck` (no progress), `until N` (ends once epoch N is reached).
"""

import json
import os
import pathlib
import signal
import sys
import time

mode, resume = sys.argv[1], sys.argv[2]
run = pathlib.Path("runs") / (resume or f"r{os.environ['FLOWMBPO_JOB']}")
(run / "tracking").mkdir(parents=True, exist_ok=True)
if not resume:
    tags = {"flowmbpo.job_task": os.environ["FLOWMBPO_JOB_TASK"], "flowmbpo.name": "tiny", "flowmbpo.seed": "0"}
    record = {"op": "create", "key": run.name, "name": "tiny/seed-0", "time": time.time_ns() // 10**6, "tags": tags}
    record["store"] = ""
    (run / "tracking" / "journal.jsonl").write_text(json.dumps(record) + "\n")
states = sorted((run / "resume").glob("epoch-*"))
epoch = int(states[-1].name[6:]) if states else 0
names = ("FLOWMBPO_JOB", "FLOWMBPO_QUEUE_SECONDS", "MLFLOW_TRACKING_URI", "CUDA_VISIBLE_DEVICES", "WHICH_SHELL")
(run / "environment.json").write_text(json.dumps({name: os.environ.get(name) for name in names}))


def stop(signum: int, frame: object) -> None:
    (run / "resume" / f"epoch-{epoch + (mode != 'stuck'):06d}").mkdir(parents=True, exist_ok=True)
    sys.exit(128 + signum)


signal.signal(signal.SIGUSR1, stop)
signal.signal(signal.SIGTERM, stop)
(run / "ready").touch()
if mode == "fails":
    print("failed: diverged by epoch 3", file=sys.stderr)
    sys.exit(1)
if mode == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if mode == "ends" or (mode.startswith("until ") and epoch >= int(mode[6:])):
    sys.exit(0)
deadline = time.monotonic() + 60
while time.monotonic() < deadline and not pathlib.Path("release").exists():
    time.sleep(0.05)
