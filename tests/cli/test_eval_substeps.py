"""`flowmbpo eval --substeps`: one trained model under several schemes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command import run_process

SHIPPED = Path(__file__).resolve().parents[2] / "experiments.toml"
FLOW = """
[experiments.drawn]
extends = "pointmass"
[experiments.drawn.world_model]
kind = "flow"
source = "noise"
velocity = "endpoint"
integrator = "heun"
substeps = 2
loss_states = "encoded"
encoder = "observation"
units = [32, 32]
encoder_units = []
latent_dim = 2
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which a small noise flow and an MLP were trained for a few epochs."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "experiments.toml").write_text(SHIPPED.read_text() + FLOW)
    run_process("run", "drawn", "pointmass", "--device", "cpu", "--epochs", "6", folder=folder)
    return folder


@pytest.fixture
def here(trained, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(trained)
    return trained


def test_a_row_for_each_scheme_on_the_same_episodes(flowmbpo, here):
    arguments = ("eval", "drawn", "--substeps", "1,4", "--integrator", "euler,heun", "--episodes", 32, "--json")
    outcome = flowmbpo(*arguments)
    assert outcome.code == 0, outcome.text
    rows = outcome.json()
    assert [(row["integrator"], row["substeps"], row["evaluations_per_step"]) for row in rows] == [
        ("euler", 1, 1),
        ("euler", 4, 4),
        ("heun", 1, 2),
        ("heun", 4, 8),
    ]
    assert len({row["mean_reward"] for row in rows}) == 1  # closed loop: the policy does not look at the model
    for key in ("latent_error_16_relative", "energy_score", "energy_score_16_relative", "coverage_90"):
        assert len({row[key] for row in rows}) > 1, key
        assert all(row[key] >= 0 for row in rows)
    assert flowmbpo(*arguments).json() == rows


def test_the_trained_scheme_is_the_default_and_a_table_shows_it(flowmbpo, here):
    (row,) = flowmbpo("eval", "drawn", "--substeps", 2, "--episodes", 32, "--json").json()
    assert (row["integrator"], row["substeps"]) == ("heun", 2)
    assert "heun 2" in flowmbpo("eval", "drawn", "--substeps", 2, "--episodes", 32).text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pointmass", "--substeps", "1,2"), "only a flow has substeps"),
        (("drawn", "--substeps", "1,x"), "--substeps '1,x': 'x' is not a whole number from 1 to 1000"),
        (("drawn", "--substeps", "0"), "'0' is not a whole number from 1 to 1000"),
        (("drawn", "--substeps", "1", "--integrator", "dopri"), "unknown integrator"),
        (("drawn", "--integrator", "heun"), "--integrator needs --substeps"),
    ],
)
def test_what_cannot_be_judged_is_said(flowmbpo, here, arguments, message):
    outcome = flowmbpo("eval", *arguments)
    assert outcome.code == 2
    assert message in " ".join(outcome.text.split())
