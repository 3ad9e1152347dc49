"""A point mass, trained through the real command line in seconds."""

import subprocess
import sys
from pathlib import Path

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
    command = [sys.executable, "-m", "flowmbpo", "run", "point", "--device", "cpu"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
