"""A point mass, trained through the real command line in seconds."""

from pathlib import Path

from tests.command import run_process

REGISTRY = """
[experiments.point]
description = "a point mass, for seconds"
env = { kind = "pointmass", episode_length = 20 }
world_model = { kind = "mlp", units = [16], encoder_units = [16], latent_dim = 16 }
actor = { units = [16] }
critic = { units = [16], passes = 2, minibatches = 2 }
evaluation = { episodes = 4, interval = 2 }
[experiments.point.train]
max_epochs = 4
num_envs = 4
wm_batch_size = 8
wm_updates = 2
wm_first_updates = 4
replay_capacity = 1000
checkpoint_interval = 2
log_interval = 2
"""


def train_point(folder: Path) -> None:
    """`flowmbpo run point` in `folder`: four epochs, checkpoints after two and four."""
    (folder / "experiments.toml").write_text(REGISTRY)
    run_process("run", "point", "--device", "cpu", folder=folder)
