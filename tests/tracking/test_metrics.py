"""The catalogue: complete, free of ambiguity, and read as a whole."""

from pathlib import Path

import pytest

from flowmbpo.tracking import metrics
from flowmbpo.tracking.metrics import CATALOGUE, check_names, metric

CONTRACT = [
    "train/episode_reward",
    "train/episode_length",
    "train/world_model_loss",
    "train/dynamics_loss",
    "train/reward_loss",
    "train/actor_loss",
    "train/value_loss",
    "perf/env_steps_per_second",
    "perf/epoch_seconds",
    "eval/mean_reward",
]


@pytest.mark.parametrize("name", CONTRACT)
def test_the_public_names_are_rows_of_their_own(name):
    assert metric(name).name == name


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("model/latent_error_16", "model/latent_error_{steps}"),
        ("perf/world_model_seconds", "perf/{phase}_seconds"),
        ("perf/epoch_seconds", "perf/epoch_seconds"),
        ("lr/actor", "lr/{part}"),
        ("system/gpu_0_utilization_percentage", "system/gpu_{gpu}_utilization_percentage"),
    ],
)
def test_placeholders_stand_for_what_they_say(name, row):
    assert metric(name).name == row


@pytest.mark.parametrize(
    "name",
    ["train/episode_rewards", "model/latent_error_0", "lr/encoder", "perf/Epoch_seconds", "eval/mean_reward\n", ""],
)
def test_unknown_names_are_refused(name):
    with pytest.raises(ValueError, match="unknown metric"):
        check_names([name])


def test_the_message_names_the_nearest_metric():
    with pytest.raises(ValueError, match="did you mean 'train/episode_reward'"):
        metric("train/episode_rewrd")


def test_names_are_unique_and_fit_into_mlflow():
    names = [row.name for row in CATALOGUE]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 250 for name in names)
    assert all(row.meaning and row.unit for row in CATALOGUE)


def test_every_row_of_the_document_is_read():
    document = Path(metrics.__file__).with_name("metrics.md")
    rows = [line for line in document.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert len(CATALOGUE) == len(rows) > 60
    for row, line in zip(CATALOGUE, rows, strict=True):
        assert line == f"| `{row.name}` | {row.unit} | {row.better} | {row.meaning} | {row.source} |"
        assert row.better in ("↑", "↓", "")
