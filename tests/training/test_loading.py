"""What is loaded from a checkpoint acts and predicts as the learner that wrote it, bit for bit."""

import pytest
import torch

from flowmbpo.runs import checkpoint
from flowmbpo.training import builder, loading
from tests.training.tiny import tiny

RECIPES = {
    "as published": {},
    "centered": {"regression": "centered", "reward_scaling": "running_std"},
    "raw": {"regression": "raw", "normalize_observations": False},
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_policy_is_loaded_without_a_learner(tmp_path, recipe, monkeypatch):
    experiment = tiny("pointmass", **RECIPES[recipe])
    learner = builder.build(experiment, 3, "cpu").algorithm
    learner.begin_epoch(0)
    learner.rollout()  # the normalisers have seen something
    about = {"epoch": 1, "env_steps": 8, "seed": 3, "experiment": experiment.model_dump(mode="json")}
    state = learner.deployable_state()
    folder = checkpoint.save(tmp_path / "epoch-000001", state, kind="checkpoint", about=about)
    expected = loading.load_learner(checkpoint.verify(folder, "checkpoint"), "cpu").policy()
    monkeypatch.setattr(builder, "build_algorithm", lambda *_: pytest.fail("a policy needs no learner"))
    policy = loading.load_policy(checkpoint.verify(folder, "checkpoint"), "cpu")
    obs = torch.randn(5, experiment.env.observation_dim, generator=torch.Generator().manual_seed(0))
    for each in (policy, expected):
        each.begin(5)
    for _ in range(experiment.train.horizon + 1):  # open loop encodes again after so many
        for loaded, known in zip(policy.act(obs), expected.act(obs), strict=True):
            torch.testing.assert_close(loaded, known, rtol=0, atol=0)


def test_heads_of_version_0_1_0_were_not_centred(tmp_path):
    """Its specs have no `train.regression`: nothing may be added to what they predict."""
    experiment = tiny("pointmass", regression="raw", reward_scaling="running_std")
    learner = builder.build(experiment, 3, "cpu").algorithm
    learner.begin_epoch(0)
    learner.rollout()
    stored = experiment.model_dump(mode="json")
    del stored["train"]["regression"]
    about = {"epoch": 1, "env_steps": 8, "seed": 3, "experiment": stored}
    folder = checkpoint.save(tmp_path / "epoch-000001", learner.deployable_state(), kind="checkpoint", about=about)
    found = checkpoint.verify(folder, "checkpoint")
    assert learner.reward_scale.center != 0
    policy = loading.load_policy(found, "cpu")
    assert policy.world_model.reward_offset == 0
    assert loading.load_learner(found, "cpu").world_model.reward_offset == 0
