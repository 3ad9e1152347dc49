"""Checkpoints as MLflow models: the same actions as the evaluated policy, also where flowmbpo is not installed."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch

from flowmbpo.models.onnx_export import write_onnx
from flowmbpo.models.standalone_policy import Policy
from flowmbpo.runs import checkpoint
from flowmbpo.spec.registry import load_registry
from flowmbpo.spec.schema import Experiment
from flowmbpo.tracking.run_tracker import start_run
from flowmbpo.training.builder import build, build_actor, build_normalizers

REPOSITORY = Path(__file__).resolve().parents[2]
OBSERVATIONS = torch.randn(64, 2, generator=torch.Generator().manual_seed(1)) * 2
VARIANTS = {
    "mlp": {},
    "flow": {"world_model": {"kind": "flow", "integrator": "heun", "substeps": 2}},
    "silu": {"world_model": {"activation": "silu"}, "actor": {"activation": "silu"}},
    "observation": {"world_model": {"encoder": "observation", "encoder_units": [], "latent_dim": 2}},
    "normalized": {"train": {"normalize_observations": True}},
    "elu": {"actor": {"activation": "elu"}},
    "standardized": {"world_model": {"latent_input": "standardized"}},
    "from_visited": {"train": {"imagination": "from_visited"}, "actor": {"average_decay": 0.9}},
}


def write(folder: Path, changes: dict) -> np.ndarray:
    """A checkpoint of an untrained learner that has seen observations; its policy's actions."""
    spec = {
        "name": "tiny",
        "env": {"kind": "pointmass"},
        "world_model": {"kind": "mlp", "units": [16], "encoder_units": [16], "latent_dim": 16},
        "train": {"max_epochs": 8, "num_envs": 4, "wm_batch_size": 8, "replay_capacity": 160},
        "evaluation": {"episodes": 4},
    }
    for section, values in changes.items():
        spec[section] = {**spec.get(section, {}), **values}
    experiment = Experiment.model_validate(spec)
    algorithm = build(experiment, 0, "cpu").algorithm
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # a fresh policy does nearly nothing
        for parameter in (*algorithm.world_model.encoder.parameters(), *algorithm.actor_learner.average.parameters()):
            if parameter.ndim > 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) / 4)
    algorithm.observations.update(torch.randn(100, 2, generator=generator))
    about = {"epoch": 1, "env_steps": 64, "experiment": experiment.model_dump(mode="json")}
    checkpoint.save(folder, algorithm.deployable_state(), kind="checkpoint", about=about)
    policy = algorithm.policy()
    policy.begin(len(OBSERVATIONS))
    return policy.act(OBSERVATIONS)[0].numpy()


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_standalone_policy_acts_as_the_evaluated_one(tmp_path, changes):
    actions = write(tmp_path / "epoch-000001", changes)
    assert np.ptp(actions) > 0.01
    np.testing.assert_allclose(
        Policy(tmp_path / "epoch-000001").predict(OBSERVATIONS.numpy()), actions, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("name", ["shac", "shac-long"])
def test_a_policy_trained_on_the_simulator(tmp_path, name):
    """It has no encoder, and sees observations of any size; one of the two is symmetric."""
    spec = load_registry(REPOSITORY / "experiments.toml").resolve(name).spec
    assert spec.actor.symmetric == (name == "shac-long")
    actor = build_actor(spec, spec.env.action_dim)
    torch.nn.init.normal_(actor.mean.weight, std=0.1)
    observations, _ = build_normalizers(spec, torch.device("cpu"))
    obs = 20 * torch.randn(64, spec.env.observation_dim, generator=torch.Generator().manual_seed(1))
    observations.update(obs / 20)
    state = {"actor": actor.state_dict(), "observations": observations.state_dict()}
    about = {"epoch": 1, "env_steps": 64, "experiment": spec.model_dump(mode="json")}
    checkpoint.save(tmp_path / "epoch-000001", state, kind="checkpoint", about=about)
    actions = actor.mean_action(observations(obs)).detach().numpy()
    np.testing.assert_allclose(Policy(tmp_path / "epoch-000001").predict(obs.numpy()), actions, rtol=0, atol=1e-6)
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    write_onnx(Policy(tmp_path / "epoch-000001"), tmp_path / "policy.onnx")
    session = runtime.InferenceSession(tmp_path / "policy.onnx")
    np.testing.assert_allclose(session.run(["actions"], {"observations": obs.numpy()})[0], actions, rtol=0, atol=1e-5)


@pytest.mark.parametrize("variant", ["observation", "standardized"])
def test_onnx_acts_alike(tmp_path, variant):
    """ONNX Runtime adds float32 numbers in another order, which shows in the sixth digit; the page says so."""
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    changes = {**VARIANTS[variant], "train": {"normalize_observations": True}}
    actions = write(tmp_path / "epoch-000001", changes)
    write_onnx(Policy(tmp_path / "epoch-000001"), tmp_path / "policy.onnx")
    session = runtime.InferenceSession(tmp_path / "policy.onnx")
    for size in (64, 1):
        (found,) = session.run(["actions"], {"observations": OBSERVATIONS[:size].numpy()})
        np.testing.assert_allclose(found, actions[:size], rtol=0, atol=1e-5)


@pytest.fixture
def model(store, client, about, tmp_path):
    """URI, folder and actions of a delivered checkpoint."""
    actions = write(tmp_path / "epoch-000001", {})
    with start_run(store, about, tmp_path / "runs") as tracker:
        tracker.checkpoint(tmp_path / "epoch-000001", epoch=1, step=64)
    (found,) = client.search_logged_models([client.get_run(tracker.run_id).info.experiment_id])
    return found.model_uri, Path(found.artifact_location.removeprefix("file://")), actions


def test_loads_where_flowmbpo_is_missing(store, model):
    program = (
        "import sys; sys.modules['flowmbpo'] = None\n"
        "import json, mlflow, numpy as np, pandas as pd\n"
        "mlflow.set_tracking_uri(sys.argv[1])\n"
        "model = mlflow.pyfunc.load_model(sys.argv[2])\n"
        "x = np.array(json.loads(sys.argv[3]), dtype=np.float32)\n"
        "given = [x, x.astype(float), x.tolist(), pd.DataFrame(x)]\n"
        "assert model.predict(model.input_example).shape == (1, 1)\n"
        "assert len(model.metadata.signature.inputs) == 2\n"
        "print(json.dumps([np.asarray(model.predict(each)).tolist() for each in given]))"
    )
    uri, folder, actions = model
    command = [sys.executable, "-c", program, store.uri, uri, json.dumps(OBSERVATIONS.tolist())]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    for found in json.loads(done.stdout):
        np.testing.assert_allclose(found, actions, rtol=0, atol=1e-6)
    assert not [file for file in folder.rglob("*") if file.suffix in (".pkl", ".pickle", ".pt")]


def test_mlflow_serves_it(model):
    _, folder, actions = model
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    # what `mlflow models serve --env-manager local` starts
    environment["__pyfunc_model_path__"] = str(folder)
    command = [sys.executable, "-m", "uvicorn", "--port", str(port), "mlflow.pyfunc.scoring_server.app:app"]
    server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            json.dumps({"inputs": OBSERVATIONS.tolist()}).encode(),
            {"Content-Type": "application/json"},
        )
        deadline = time.monotonic() + 120
        while True:
            try:
                answer = json.load(urllib.request.urlopen(request, timeout=60))
                break
            except OSError:
                assert server.poll() is None, server.stdout.read()
                assert time.monotonic() < deadline
                time.sleep(0.2)
        np.testing.assert_allclose(answer["predictions"], actions, rtol=0, atol=1e-6)
    finally:
        server.kill()
        server.wait()
