"""Memory: what the replay costs, and that a run is as large after 80 epochs as after 50."""

import torch
from mlflow import MlflowClient

from flowmbpo.algorithms.replay import Replay


def test_the_replay_takes_what_its_numbers_cost():
    replay = Replay(capacity=1_000_000, num_envs=100, obs_dim=37, action_dim=8, device=torch.device("cpu"))
    numbers = 1_000_000 * (4 * (37 + 8 + 1) + 2)
    assert sum(tensor.nbytes for tensor in vars(replay).values() if torch.is_tensor(tensor)) <= numbers + 2_000


def test_a_whole_run_is_as_large_after_80_epochs_as_after_50(work):
    """The Ant with a replay of 170 MB that never fills: training, logging, evaluation and checkpoints."""
    with (work.folder / "experiments.toml").open("a") as registry:
        registry.write(
            """
[experiments.large]
extends = "small"
env.kind = "ant"
world_model = { latent_dim = 37, units = [64] }
train = { max_epochs = 80, num_envs = 64, wm_batch_size = 64, replay_capacity = 1_000_000 }
evaluation = { episodes = 8 }
"""
        )
    work.run("run", "large")
    client = MlflowClient(tracking_uri=f"sqlite:///{work.database}")
    peaks = {point.step: point.value for point in client.get_metric_history(work.run_id, "perf/peak_rss_mb")}
    steps = 64 * 16
    # The first evaluations whose episodes are long enough also measure the model's gradients, 1% more; then it is flat.
    assert peaks[50 * steps] <= 1.02 * peaks[10 * steps]
    assert peaks[80 * steps] <= 1.01 * peaks[50 * steps]
