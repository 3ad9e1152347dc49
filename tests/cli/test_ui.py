"""`flowmbpo ui`: a real server on our store, bound to this machine only, gone when the command ends."""

import json
import signal
import socket
import time
import urllib.request

import psutil
import pytest

from flowmbpo.cli import ui
from flowmbpo.errors import UserError
from flowmbpo.tracking.mlflow_view import experiment_tags
from flowmbpo.tracking.run_tracker import RunDescription, start_run
from flowmbpo.tracking.store import resolve_store
from tests.cli.ui_server import free_port, start_ui

# In the user's shell; none of it is about this server.
OTHER_SERVERS = {
    "http_proxy": "http://127.0.0.1:9",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "MLFLOW_STATIC_PREFIX": "/elsewhere",
    "_MLFLOW_STATIC_PREFIX": "/elsewhere",
    "MLFLOW_BACKEND_STORE_URI": "postgresql://u:pw@127.0.0.1:1/db",
    "GUNICORN_CMD_ARGS": "--bind 0.0.0.0:80",
    "prometheus_multiproc_dir": "/nonexistent",
    "MLFLOW_GUNICORN_OPTS": "--bind 0.0.0.0:80",
    "MLFLOW_HOST": "0.0.0.0",
    "UVICORN_ROOT_PATH": "/elsewhere",
    "UVICORN_SSL_KEYFILE": "/nonexistent",
}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_ui_serves_our_runs_to_this_machine_only(tmp_path, number):
    folder = tmp_path / "50%20 off? what is#this"
    folder.mkdir()
    about = RunDescription("quickstart", 0, {"train": {"horizon": 16}}, "h", "cpu")
    with start_run(resolve_store(None, folder), about, folder / "runs") as tracker:
        tracker.log({"train/episode_reward": 5.0}, step=10)
    port = free_port()
    (folder / "random.py").write_text("raise ImportError('a file of the user')")
    process = start_ui(folder, port, **OTHER_SERVERS)
    family = []
    try:
        address = process.stdout.readline().strip()
        assert address.startswith(f"http://127.0.0.1:{port}/#/experiments/")
        assert "viewStateShareKey=flowmbpo" in address
        experiment = address.partition("/experiments/")[2].partition("/")[0]
        query = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/get?experiment_id={experiment}"
        with urllib.request.urlopen(query, timeout=30) as answer:
            found = json.load(answer)["experiment"]
        assert found["name"] == "flowmbpo"
        assert {tag["key"]: tag["value"] for tag in found["tags"]} == experiment_tags()
        query = f"http://127.0.0.1:{port}/api/2.0/mlflow/runs/get?run_id={tracker.run_id}"
        with urllib.request.urlopen(query, timeout=30) as answer:
            assert json.load(answer)["run"]["info"]["status"] == "FINISHED"
        assert list(tmp_path.iterdir()) == [folder]
        family = psutil.Process(process.pid).children(recursive=True)
        listening = [
            connection.laddr
            for child in family
            for connection in child.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert listening
        assert {address.ip for address in listening} == {"127.0.0.1"}
    finally:
        process.send_signal(number)
        code = process.wait(timeout=60)
    assert code == 0
    deadline = time.monotonic() + 20
    while any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in family):
        assert time.monotonic() < deadline, family
        time.sleep(0.1)


def test_a_taken_port_is_the_users_mistake():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match=r"is not free.*--port"):
        ui._check_port(taken.getsockname()[1])


def test_the_view_fits_into_a_tag_and_names_catalogued_metrics():
    from flowmbpo.tracking.metrics import metric

    tags = experiment_tags()
    (text,) = (value for key, value in tags.items() if key.startswith("mlflow.sharedViewState."))
    assert len(text) <= 20_000  # MLflow's limit for a tag of an experiment
    view = json.loads(text)
    sections = {section["uuid"] for section in view["compareRunSections"]}
    for chart in view["compareRunCharts"]:
        metric(chart["metricKey"])
        assert chart["metricSectionId"] in sections
    assert "metrics.`train/episode_reward`" in view["selectedColumns"]
