"""A real MLflow server for tests, and looks at what a store holds."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from flowmbpo.tracking.run_tracker import RunTracker

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")


class Server:
    """A real `mlflow server` on 127.0.0.1 that can be killed and started again on the same port."""

    def __init__(self, folder: Path, database: Path) -> None:
        self.folder = folder
        self.database = database
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        line = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        line += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.database}"]
        line += ["--artifacts-destination", str(self.folder / "served")]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with open(self.folder / "server.log", "ab") as log:
            self.process = subprocess.Popen(line, stdout=log, stderr=log, env=environment, start_new_session=True)
        deadline = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                    return
            except OSError:
                assert self.process.poll() is None, (self.folder / "server.log").read_text()
                assert time.monotonic() < deadline, "the server does not start"
                time.sleep(0.2)

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


def history(client: MlflowClient, run_id: str, metric: str) -> list[tuple[int, float]]:
    """(step, value) of every point that the store has, in order of steps, repeated ones included."""
    return sorted((point.step, point.value) for point in client.get_metric_history(run_id, metric))


def wait_for(condition: Callable[[], T], seconds: float = 60.0) -> T:
    """The condition's first true value; fails the test when it stays false."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition never became true"
        time.sleep(0.1)
    return value


def delivered(tracker: RunTracker) -> bool:
    """Whether the store has everything that a run has said so far."""
    delivery = tracker.delivery._delivery
    return delivery is not None and not delivery.pending_bytes
