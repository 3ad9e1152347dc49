"""`flowmbpo ui`: MLflow's own UI on our store, for this machine only, opened on a useful view."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Annotated

import typer

from flowmbpo.cli import tables
from flowmbpo.cli.options import TrackingOption
from flowmbpo.errors import UserError, WorkFailed
from flowmbpo.tracking.mlflow_view import server_of, view_url
from flowmbpo.tracking.store import Store, check_store, resolve_store

_HOST = "127.0.0.1"  # never another interface: the UI has no password
_START_SECONDS = 300.0  # a loaded machine or a disk on the network takes more than one minute
_OF_SERVERS = ("MLFLOW_", "_MLFLOW_", "UVICORN_", "GUNICORN_", "FLASK_", "prometheus_")


def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 5000,
    tracking_uri: TrackingOption = None,
) -> None:
    """Open MLflow's UI on the tracking store; Ctrl-C ends it."""
    store = resolve_store(tracking_uri)
    if not check_store(store):
        raise UserError(f"there are no runs in {store}: it does not exist yet; `flowmbpo run quickstart` makes one")
    if not store.is_server:
        _check_port(port)
    from flowmbpo.tracking.mlflow_writer import prepare_experiment

    address = view_url(server_of(store, port), prepare_experiment(store))
    if store.is_server:
        typer.echo(address)
        return
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell that starts this in the background had the first ignored
        signal.signal(number, signal.default_int_handler)
    # A group of its own: the server has children, and all of them have to go with us. Its chatter goes to stderr.
    place = store.sqlite.parent if store.sqlite else None
    process = subprocess.Popen(command(store, port), env=environment(), cwd=place, stdout=2, start_new_session=True)
    try:
        _wait(process, port)
        typer.echo(address)
        tables.err.print("Ctrl-C ends the UI.")
        process.wait()
    except KeyboardInterrupt:
        pass
    finally:
        _end(process)


def command(store: Store, port: int) -> list[str]:
    """The command line of the server, to be started in the folder of a sqlite store."""
    line = [sys.executable, "-m", "mlflow", "server", "--host", _HOST, "--port", str(port), "--workers", "1"]
    # Uvicorn takes modules from the working directory, where the user's files are, unless another folder is named.
    line += ["--uvicorn-opts", f"--log-level=warning --app-dir={os.devnull}"]
    # MLflow makes the folder that a URI of sqlite names without decoding it: %3F would be another one than ?.
    line += ["--backend-store-uri", f"sqlite:///{store.uri.rpartition('/')[2]}" if store.sqlite else store.uri]
    return [*line, "--default-artifact-root", store.artifacts] if store.artifacts else line


def environment() -> dict[str, str]:
    """Ours, without what the user's shell says about other servers, MLflow's job queue (background processes for LLM
    evaluation) and its telemetry. Files in the working directory are no modules."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OF_SERVERS)}
    kept |= {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_S3_")}
    ours = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONSAFEPATH": "1"}
    return {**kept, **ours}


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            raise UserError(f"port {port} on {_HOST} is not free ({error.strerror}); use another --port") from None


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            continue


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise WorkFailed(f"the MLflow server ended with exit code {process.returncode}; its messages are above")
        try:
            with urllib.request.urlopen(f"http://{_HOST}:{port}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise WorkFailed(f"the MLflow server did not answer within {_START_SECONDS:.0f} s")
