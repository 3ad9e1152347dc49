"""Memory: what the replay costs, and that a run is as large after 50 epochs as after 10."""

import torch
from mlflow import MlflowClient

from flowmbpo.algorithms.replay import Replay


def test_the_replay_takes_what_its_numbers_cost():
    replay = Replay(capacity=1_000_000, num_envs=100, obs_dim=37, action_dim=8, device=torch.device("cpu"))
    numbers = 1_000_000 * (4 * (37 + 8 + 1) + 2)
    assert sum(tensor.nbytes for tensor in vars(replay).values() if torch.is_tensor(tensor)) <= numbers + 2_000


def test_a_whole_run_is_as_large_after_50_epochs_as_after_10(work):
    """The Ant with a replay of 170 MB that never fills: training, logging, evaluation and checkpoints."""
    with (work.folder / "experiments.toml").open("a") as registry:
        registry.write(
            """
[experiments.large]
extends = "small"
env.kind = "ant"
world_model = { latent_dim = 37, units = [64] }
train = { max_epochs = 50, num_envs = 64, wm_batch_size = 64, replay_capacity = 1_000_000 }
evaluation = { episodes = 8 }
"""
        )
    work.run("run", "large")
    client = MlflowClient(tracking_uri=f"sqlite:///{work.database}")
    peaks = {point.step: point.value for point in client.get_metric_history(work.run_id, "perf/peak_rss_mb")}
    steps = 64 * 16
    assert peaks[50 * steps] <= 1.01 * peaks[10 * steps]
