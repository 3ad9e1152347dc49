"""What is measured on held-out episodes: that it is right, that it counts, and that it disturbs nothing."""

import pytest
import torch
from torch import nn

from flowmbpo.algorithms.held_out import HeldOut
from flowmbpo.algorithms.optimization import GuardedAdam
from flowmbpo.envs import AntEnv
from flowmbpo.envs.pointmass import SPEED, PointMassEnv
from flowmbpo.models.flow import FlowDynamics
from flowmbpo.models.shortcut import ShortcutDynamics
from flowmbpo.tracking.metrics import check_names
from flowmbpo.training.evaluator import Evaluator
from tests.algorithms.small_learner import GROUNDED, PUBLISHED, learner, run_epochs

FORMS = {
    "published": {"train": PUBLISHED, "latent_dim": 16},
    "grounded": {"train": GROUNDED, "actor": {"updates": 2}, "critic": {"targets": "real"}},
}


def empty(env):
    sizes = {"num_envs": env.num_envs, "obs_dim": env.obs_dim, "action_dim": env.action_dim, "device": env.device}
    return HeldOut(steps=env.episode_length, **sizes)


def held_out_episodes(algorithm, episodes=8, length=20):
    env = PointMassEnv(num_envs=episodes, seed=5, episode_length=length)
    record = empty(env)
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
    twin = learner(**FORMS[form])
    run_epochs(twin, 0, 4)
    run_epochs(algorithm, 3, 4)
    after, never_measured = flat(algorithm.state_dict()), flat(twin.state_dict())
    assert all(torch.equal(after[name], never_measured[name]) for name in after)


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


class Drunkard:
    """Random torques, the same in every evaluation: some Ants fall."""

    def begin(self, num_envs):
        self.generator = torch.Generator().manual_seed(1)

    def act(self, obs):
        return 2 * torch.rand(len(obs), 8, generator=self.generator) - 1, torch.zeros(len(obs))


def test_held_out_is_the_first_episode_of_each_environment_as_it_was():
    """The Ant returns its own buffers, which change with every step; some fall and start again."""
    env = AntEnv(num_envs=8, seed=3, episode_length=200)
    record = empty(env)
    evaluation = Evaluator(env, seed=3)(Drunkard(), record)
    found = vars(record)
    lengths = found["_lengths"]
    assert lengths.sum() == evaluation.metrics["eval/mean_length"] * 8
    assert lengths.min() < 150 < lengths.max()
    torch.testing.assert_close(
        sum(found["_rewards"][: int(n), i].sum() for i, n in enumerate(lengths)) / 8,
        torch.tensor(evaluation.mean_reward),
    )
    again = AntEnv(num_envs=8, seed=3, episode_length=200)
    policy = Drunkard()
    policy.begin(8)
    obs = again.reset().clone()
    for t in range(199):
        alive = lengths > t
        torch.testing.assert_close(found["_obs"][t][alive], obs[alive], rtol=0, atol=0)
        obs = again.step(policy.act(obs)[0]).obs.clone()

    sampled = record.sample(1000, 16, torch.Generator().manual_seed(0))
    moved = (sampled.obs[1:] - sampled.obs[:-1]).abs().amax((1, 2))
    assert (moved > 0).all()
    assert not sampled.terminated[:-1].any()
    assert record.sample(1, 201, torch.Generator()) is None


def test_a_second_evaluation_replaces_the_first():
    algorithm = learner(**FORMS["grounded"])
    run_epochs(algorithm, 0, 3)
    held_out = held_out_episodes(algorithm)
    before = held_out.sample(64, 16, torch.Generator().manual_seed(0))
    Evaluator(PointMassEnv(num_envs=8, seed=5, episode_length=20), seed=5)(algorithm.policy(), held_out)
    after = held_out.sample(64, 16, torch.Generator().manual_seed(0))
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    held_out.begin(torch.zeros(8, 2))
    assert set(algorithm.diagnose(held_out)) == {"model/velocity_evaluations"}


def test_only_so_many_episodes_are_kept():
    env = PointMassEnv(num_envs=300, seed=5, episode_length=20)
    record = HeldOut.of(env, steps=20, episodes=128)
    Evaluator(env, seed=5)(learner(**FORMS["grounded"]).policy(), record)
    assert (record.num_envs, record.steps) == (128, 20)
    assert record.sample(10, 16, torch.Generator()).obs.shape == (17, 10, 2)


def test_nothing_is_said_of_an_actor_that_was_not_updated():
    algorithm = learner(**FORMS["grounded"])
    assert "train/actor_gradient_snr" not in algorithm.diagnose(held_out_episodes(algorithm))


def test_more_rollouts_have_more_signal():
    ratios = []
    for rollouts in (64, 1024):  # with fewer the estimate is within its own noise
        algorithm = learner(train=GROUNDED, actor={"imagined_batch_size": rollouts})
        run_epochs(algorithm, 0, 6)
        ratios.append(algorithm.diagnose(held_out_episodes(algorithm, episodes=64))["train/actor_gradient_snr"])
    assert ratios[1] > 3 * ratios[0] > 0


def test_the_ratio_belongs_to_the_whole_update_however_few_rollouts_it_has():
    ratios = {}
    for rollouts in (2, 8, 64):
        algorithm = learner(train=GROUNDED)
        run_epochs(algorithm, 0, 6)
        algorithm.actor_spec = algorithm.actor_spec.model_copy(update={"imagined_batch_size": rollouts})
        ratios[rollouts] = algorithm.diagnose(held_out_episodes(algorithm, episodes=64))["train/actor_gradient_snr"]
    assert ratios[2] == pytest.approx(ratios[8] / 4)
    assert ratios[64] > ratios[8]


class Counter(nn.Module):
    """Counts the states that a network is asked about."""

    def __init__(self, network):
        super().__init__()
        self.network, self.states = network, 0

    def forward(self, z, *rest):
        self.states += z.shape[:-1].numel()
        return self.network(z, *rest)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["mlp", "heun", "both", "shortcut"])
def test_velocity_evaluations_are_those_that_an_epoch_makes(form, kind):
    choice = FORMS[form] | {"latent_dim": 16, "train": FORMS[form]["train"] | {"wm_first_updates": 2}}
    algorithm = learner(**choice)
    sizes = {"latent_dim": 16, "action_dim": 1, "units": (8,), "simnorm_dim": 8, "activation": "silu"}
    model = algorithm.world_model
    if kind == "heun":
        flow = {"integrator": "heun", "substeps": 3, "tau_sampling": "uniform", "velocity": "linear"}
        model.dynamics = FlowDynamics(**sizes, **flow, residual=False, objective="matching")
    elif kind == "both":
        flow = {"integrator": "heun", "substeps": 3, "tau_sampling": "uniform", "velocity": "endpoint"}
        model.dynamics = FlowDynamics(**sizes, **flow, residual=True, objective="both")
    elif kind == "shortcut":
        flow = {"integrator": "euler", "substeps": 2, "tau_sampling": "uniform"}
        model.dynamics = ShortcutDynamics(**sizes, **flow, residual=False)
    algorithm.model_learner.optimizer = GuardedAdam(
        list(model.parameters()), learning_rate=1e-3, betas=(0.7, 0.95), grad_norm=1.0
    )
    part = "trunk" if kind == "mlp" else "velocity"
    algorithm.model_learner.caught_up = True  # so that the actor does not rest
    counter = Counter(getattr(model.dynamics, part))
    setattr(model.dynamics, part, counter)
    run_epochs(algorithm, 0, 1)
    assert counter.states == algorithm.diagnose(held_out_episodes(algorithm))["model/velocity_evaluations"]
