"""With `--json` standard output is one JSON document, whatever MLflow and others print, against a server too."""

from __future__ import annotations

import json
import sys
import warnings

import pytest

from flowmbpo.cli import app, streams, tables
from tests.command import run_process

REGISTRY = """
[experiments.point]
env = { kind = "pointmass", episode_length = 20 }
world_model = { kind = "mlp", encoder = "observation", units = [8], encoder_units = [], latent_dim = 2 }
actor = { units = [8], imagined_batch_size = 8, recent_steps = 32 }
critic = { units = [8], passes = 1, minibatches = 2 }
evaluation = { episodes = 2, interval = 2 }
[experiments.point.train]
imagination = "from_visited"
max_epochs = 2
num_envs = 4
wm_batch_size = 8
wm_updates = 2
wm_first_updates = 2
replay_capacity = 320
"""


def test_a_run_against_a_server(server, tmp_path):
    server.start()
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "experiments.toml").write_text(REGISTRY)
    for command in ("run point --device cpu", "eval point --device cpu --episodes 2", "runs", "sync"):
        done = run_process(*command.split(), "--json", "--tracking-uri", server.uri, folder=folder)
        done.json()
        assert "View run" not in done.text


def test_what_a_library_prints_goes_to_standard_error(monkeypatch, capsys):
    def noisy(*_):
        print("from a library")
        warnings.warn("of a library", stacklevel=1)
        raise SystemExit(tables.print_json({"a": 1.0, "b": float("nan")}))

    monkeypatch.setattr("flowmbpo.spec.registry.load_registry", noisy)
    monkeypatch.setattr(sys, "argv", ["flowmbpo", "show", "x", "--json"])
    with pytest.raises(SystemExit) as end:
        app.main()
    assert not end.value.code
    said = capsys.readouterr()
    assert json.loads(said.out) == {"a": 1.0, "b": None}
    assert "from a library" in said.err
    assert streams._json is None
