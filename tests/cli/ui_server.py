"""Starts `flowmbpo ui` as a user does."""

import os
import socket
import subprocess
import sys
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_ui(folder: Path, port: int, **variables: str) -> subprocess.Popen[str]:
    """The running command; its first line of output is the address."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "flowmbpo", "ui", "--port", str(port)],
        cwd=folder,
        env={**{key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
