"""What is measured on held-out episodes: that it is right, that it counts, and that it disturbs nothing."""

import pytest
import torch
from small_learner import GROUNDED, PUBLISHED, learner, run_epochs
from torch import nn

from flowmbpo.algorithms.replay import Replay
from flowmbpo.envs.pointmass import SPEED, PointMassEnv
from flowmbpo.models.flow import FlowDynamics
from flowmbpo.models.shortcut import ShortcutDynamics
from flowmbpo.tracking.metrics import check_names
from flowmbpo.training.evaluator import Evaluator

FORMS = {
    "published": {"train": PUBLISHED, "latent_dim": 16},
    "grounded": {"train": GROUNDED, "actor": {"updates": 2}, "critic": {"targets": "real"}},
}


def held_out_episodes(algorithm, episodes=8, length=20):
    env = PointMassEnv(num_envs=episodes, seed=5, episode_length=length)
    record = Replay(capacity=episodes * (length + 2), num_envs=episodes, obs_dim=2, action_dim=1, device=env.device)
    Evaluator(env, seed=5)(algorithm.policy(), record)
    return record


@pytest.mark.parametrize("form", FORMS)
def test_it_disturbs_nothing_and_repeats(form):
    algorithm = learner(**FORMS[form])
    run_epochs(algorithm, 0, 3)
    held_out = held_out_episodes(algorithm)
    before = {name: value.clone() for name, value in flat(algorithm.state_dict()).items()}
    first, second = algorithm.diagnose(held_out), algorithm.diagnose(held_out)
    check_names(first)
    assert first == second
    assert all(value.shape == () and torch.isfinite(value) for value in first.values())
    assert ("model/simplex_distance" in first) == (form == "published")
    after = flat(algorithm.state_dict())
    assert all(torch.equal(before[name], after[name]) for name in before)
    run_epochs(algorithm, 3, 4)  # and no gradient was left behind that training would meet


def flat(state):
    if isinstance(state, dict):
        return {f"{key}/{name}": value for key, item in state.items() for name, value in flat(item).items()}
    return {"": state} if isinstance(state, torch.Tensor) else {}


def test_a_perfect_model_has_no_error_and_a_wrong_one_the_error_it_has():
    """Dynamics of the point mass written down; the reward 1 - |position| too."""
    algorithm = learner(train={"imagination": "from_visited", "reward_scaling": "none"})
    held_out = held_out_episodes(algorithm)

    def follow(z, action, drift=0.0):
        return torch.cat((z[..., :1] + SPEED * action + drift, action), -1)

    algorithm.world_model.dynamics.next = follow
    algorithm.world_model.reward = lambda z, action: 1 - z[..., 0].abs()
    found = algorithm.diagnose(held_out)
    for steps in (1, 4, 8, 16):
        assert found[f"model/latent_error_{steps}"] < 1e-10
    assert found["model/reward_correlation"] == pytest.approx(1.0, abs=1e-5)
    assert found["model/reward_bias"] == pytest.approx(0.0, abs=1e-6)

    algorithm.world_model.dynamics.next = lambda z, action: follow(z, action, drift=0.01)
    found = algorithm.diagnose(held_out)
    for steps in (1, 4, 8, 16):  # in one of two features
        assert found[f"model/latent_error_{steps}"] == pytest.approx((0.01 * steps) ** 2 / 2, rel=1e-3)


def test_held_out_means_the_evaluations_episodes_and_the_newest_only():
    algorithm = learner(**FORMS["grounded"])
    run_epochs(algorithm, 0, 3)
    held_out = held_out_episodes(algorithm)
    start = PointMassEnv(num_envs=8, seed=5, episode_length=20).reset()
    torch.testing.assert_close(held_out.state_dict()["_obs"][0], start)
    assert len(held_out.starts(16)) == 8 * 5  # windows of 16 within 20 steps
    held_out.clear()
    assert len(held_out) == 0
    assert set(algorithm.diagnose(held_out)) == {"model/velocity_evaluations"}


def test_nothing_is_said_of_an_actor_that_was_not_updated():
    algorithm = learner(**FORMS["grounded"])
    assert "train/actor_gradient_snr" not in algorithm.diagnose(held_out_episodes(algorithm))


def test_more_rollouts_have_more_signal():
    ratios = []
    for rollouts in (16, 256):
        algorithm = learner(train=GROUNDED, actor={"imagined_batch_size": rollouts})
        run_epochs(algorithm, 0, 6)
        ratios.append(algorithm.diagnose(held_out_episodes(algorithm, episodes=64))["train/actor_gradient_snr"])
    assert ratios[1] > 3 * ratios[0] > 0


class Counter(nn.Module):
    """Counts the states that a network is asked about."""

    def __init__(self, network):
        super().__init__()
        self.network, self.states = network, 0

    def forward(self, z, *rest):
        self.states += z.shape[:-1].numel()
        return self.network(z, *rest)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["mlp", "heun", "shortcut"])
def test_velocity_evaluations_are_those_that_an_epoch_makes(form, kind):
    choice = FORMS[form] | {"latent_dim": 16, "train": FORMS[form]["train"] | {"wm_first_updates": 2}}
    algorithm = learner(**choice)
    sizes = {"latent_dim": 16, "action_dim": 1, "units": (8,), "simnorm_dim": 8, "activation": "silu"}
    model = algorithm.world_model
    if kind == "heun":
        model.dynamics = FlowDynamics(**sizes, integrator="heun", substeps=3, tau_sampling="uniform", velocity="linear")
    elif kind == "shortcut":
        model.dynamics = ShortcutDynamics(**sizes, integrator="euler", substeps=2, tau_sampling="uniform")
    part = "trunk" if kind == "mlp" else "velocity"
    algorithm.world_model_updates = 1  # so that the actor does not rest
    counter = Counter(getattr(model.dynamics, part))
    setattr(model.dynamics, part, counter)
    run_epochs(algorithm, 0, 1)
    assert counter.states == algorithm.diagnose(held_out_episodes(algorithm))["model/velocity_evaluations"]
