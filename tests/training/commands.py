"""`flowmbpo` commands as processes of their own in a folder of their own, forked from one that has imported everything.

Signals, exit codes, locks and files are those of real processes; only the seconds of importing are paid once.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "flowmbpo.cli.app",
        "flowmbpo.api",
        "flowmbpo.reports.run_picture",
        "flowmbpo.training.reevaluation",
        "flowmbpo.training.session",
        "mlflow.store.tracking.sqlalchemy_store",
    ]
)

REGISTRY = """
[experiments.small]
env = { kind = "pointmass", episode_length = 20 }
world_model = { kind = "mlp", encoder = "observation", units = [8], encoder_units = [], latent_dim = 2 }
actor = { units = [8], imagined_batch_size = 8, recent_steps = 32 }
critic = { units = [8], passes = 1, minibatches = 2 }
evaluation = { episodes = 2, interval = 5 }

[experiments.small.train]
imagination = "from_visited"
max_epochs = 100_000
num_envs = 4
wm_batch_size = 8
wm_updates = 2
wm_first_updates = 2
replay_capacity = 320
checkpoint_interval = 10
log_interval = 1
"""


@dataclass
class Command:
    """A running or finished `flowmbpo ARGUMENTS...`."""

    process: Any
    output: Path

    @property
    def text(self) -> str:
        """Standard output and standard error so far."""
        return self.output.read_text()

    def send(self, signum: int) -> None:
        os.kill(self.process.pid, signum)

    def wait(self) -> int:
        """The exit code as a shell shows it: 128 + the signal's number for a process that a signal ended."""
        self.process.join(300)
        assert self.process.exitcode is not None, f"still running:\n{self.text}"
        return self.process.exitcode if self.process.exitcode >= 0 else 128 - self.process.exitcode


@dataclass
class Workplace:
    """A working directory with a registry and an MLflow store."""

    folder: Path
    database: Path
    commands: list[Command] = field(default_factory=list)

    def start(self, *arguments: object, before: Callable[[], None] | None = None) -> Command:
        """Begin a command; `before` runs in its process first."""
        output = self.database.with_name(f"output-{self.folder.name}-{len(self.commands)}.txt")
        environment = {
            "MLFLOW_TRACKING_URI": f"sqlite:///{self.database}",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "300",
        }
        process = _CONTEXT.Process(
            target=_command, args=([str(a) for a in arguments], self.folder, environment, output, before)
        )
        output.touch()
        process.start()
        command = Command(process, output)
        self.commands.append(command)
        return command

    def run(self, *arguments: object, code: int = 0, before: Callable[[], None] | None = None) -> str:
        """A command from start to end; what it said."""
        command = self.start(*arguments, before=before)
        assert command.wait() == code, command.text
        assert "Traceback" not in command.text, command.text
        return command.text

    @property
    def run_id(self) -> str:
        """The only run in the folder."""
        (folder,) = (self.folder / "runs").iterdir()
        return folder.name

    @property
    def run_folder(self) -> Path:
        return self.folder / "runs" / self.run_id

    def states(self) -> list[int]:
        """Epochs of the resumable states."""
        return sorted(int(p.name[6:]) for p in self.run_folder.glob("resume/epoch-*"))

    def epochs_logged(self) -> int:
        """Epochs that the journal knows."""
        journals = list(self.folder.glob("runs/*/tracking/journal.jsonl"))
        return journals[0].read_text().count('"train/epoch"') if journals else 0

    def until(self, condition: Callable[[], object], command: Command) -> None:
        """Wait until `condition` holds; the command must go on meanwhile."""
        deadline = time.monotonic() + 300
        while not condition():
            assert command.process.is_alive(), command.text
            assert time.monotonic() < deadline, command.text
            time.sleep(0.005)

    def histories(self, run_id: str) -> dict[str, list[tuple[int, float]]]:
        """Every point in MLflow of the metrics that do not measure time or the machine, ascending."""
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=f"sqlite:///{self.database}")
        run = client.get_run(run_id)
        return {
            name: sorted((point.step, point.value) for point in client.get_metric_history(run_id, name))
            for name in run.data.metrics
            if not name.startswith(("perf/", "system/"))
        }

    def status(self, run_id: str) -> str:
        """What MLflow says of the run."""
        from mlflow import MlflowClient

        return str(MlflowClient(tracking_uri=f"sqlite:///{self.database}").get_run(run_id).info.status)

    def digests(self, run_id: str, epoch: int) -> dict[str, str]:
        """Checksums of the tensors of the checkpoint and of the resumable state of one epoch."""
        found = {}
        for kind in ("checkpoints", "resume"):
            manifest = self.folder / "runs" / run_id / kind / f"epoch-{epoch:06d}" / "manifest.json"
            found[kind] = json.loads(manifest.read_text())["files"]["tensors.safetensors"]["sha256"]
        return found


def _command(
    arguments: list[str],
    folder: Path,
    environment: Mapping[str, str],
    output: Path,
    before: Callable[[], None] | None,
) -> None:
    from flowmbpo.cli import app
    from flowmbpo.tracking import code_state

    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored where the tests run under nohup
    os.chdir(folder)
    os.environ.pop("FLOWMBPO_REGISTRY", None)
    os.environ.update(environment)
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.argv = ["flowmbpo", *arguments]
    # A commit made while the tests run is no change that they look for.
    code_state.installed = lambda: code_state.CodeState(commit="of the tests")  # type: ignore[assignment]
    if before is not None:
        before()
    app.main()
