"""In every experiment of the shipped registry actor and critic rest until the model's many first updates have begun.

Each in its real environment and with its own kinds of networks, made small.
"""

from pathlib import Path

import pytest
import torch
from torch.nn.utils import parameters_to_vector

from flowmbpo.spec.registry import load_registry
from flowmbpo.training.builder import build
from tests.algorithms.small_learner import run_epochs

REGISTRY = load_registry(Path(__file__).resolve().parents[1] / "experiments.toml")
RESTING = 3  # epochs, where an experiment has more
SMALL = {
    "train": {"num_envs": 8, "wm_batch_size": 8, "wm_first_updates": 2, "wm_updates": 1, "starts": 1},
    "actor": {"units": [16], "imagined_batch_size": 8},
    "critic": {"units": [16], "passes": 1, "minibatches": 1},
    "evaluation": {"episodes": 2},
}


def shrunk(name):
    spec = REGISTRY.resolve(name).spec
    train, model = spec.train, spec.world_model
    rests = {key: min(getattr(train, key), RESTING) for key in ("warmup_epochs", "wm_first_epoch")}
    layers = (key for key, value in model.model_dump().items() if key.endswith("units") and value)
    narrow = {key: [16] for key in layers} | ({"latent_dim": 16} if model.model_dump().get("encoder") == "mlp" else {})
    sections = SMALL | {"train": SMALL["train"] | rests, "world_model": narrow}
    overrides = [f"{section}.{key}={value}" for section, keys in sections.items() for key, value in keys.items()]
    return REGISTRY.resolve(name, overrides).spec


@pytest.mark.parametrize("name", REGISTRY.names())
def test_actor_and_critic_rest_until_the_many_first_updates(name):
    spec = shrunk(name)
    algorithm = build(spec, 0, "cpu").algorithm
    # The simulator has nothing to learn, so that nobody waits for it.
    resting = 0 if spec.world_model.kind == "simulator" else max(spec.train.warmup_epochs, spec.train.wm_first_epoch)

    def weights():
        return [parameters_to_vector(net.parameters()).detach() for net in (algorithm.actor, algorithm.critic)]

    before = weights()
    for epoch in range(resting):
        assert not algorithm.model_learner.caught_up, epoch
        run_epochs(algorithm, epoch, epoch + 1)
        assert all(map(torch.equal, before, weights())), epoch
    assert algorithm.model_learner.caught_up
    run_epochs(algorithm, resting, resting + 1)
    assert not any(map(torch.equal, before, weights()))
