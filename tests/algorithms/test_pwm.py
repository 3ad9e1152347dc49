"""The whole learner on the point mass: what each phase may touch, exact resume, and that it learns."""

import copy
import math
import operator

import pytest
import torch

from flowmbpo.algorithms.imagination import imagine, limited, predicted
from flowmbpo.algorithms.learner_state import load_deployable_state
from flowmbpo.algorithms.returns import segment_returns
from flowmbpo.envs.pointmass import PointMassEnv
from flowmbpo.tracking.metrics import check_names
from tests.algorithms.small_learner import GROUNDED, PUBLISHED, learner, run_epochs

VARIANTS = {
    "published": {"train": PUBLISHED, "latent_dim": 16},
    "published-real-targets": {"train": PUBLISHED, "latent_dim": 16, "critic": {"targets": "real"}},
    "grounded": {
        "train": GROUNDED | {"warmup_epochs": 2},
        "actor": {"updates": 2, "average_decay": 0.9},
        "critic": {"targets": "real"},
    },
    "dreaming": {"train": GROUNDED, "critic": {"targets": "imagined"}},
    "predicting": {"train": GROUNDED, "latent_dim": 16, "critic": {"targets": "real", "states": "predicted"}},
}


@pytest.fixture(params=VARIANTS)
def variant(request):
    return VARIANTS[request.param]


def weights(module):
    return [parameter.detach().clone() for parameter in module.parameters()]


def same(before, module):
    return all(torch.equal(old, new) for old, new in zip(before, module.parameters(), strict=True))


def test_statistics_are_detached_scalars_with_catalogued_names(variant):
    statistics = run_epochs(learner(**variant), 0, 4)
    check_names(statistics)
    assert {"train/actor_loss", "train/value_loss", "train/world_model_loss", "train/dynamics_loss"} <= set(statistics)
    for name, value in statistics.items():
        assert value.shape == (), name
        assert not value.requires_grad, name
        assert math.isfinite(value), name


def test_each_phase_changes_only_its_own_network(variant):
    algorithm = learner(**variant)
    run_epochs(algorithm, 0, 3)
    parts = {"actor": algorithm.actor, "critic": algorithm.critic, "world_model": algorithm.world_model}
    algorithm.begin_epoch(3)
    for phase, update in algorithm.phases:
        before = {name: weights(module) for name, module in parts.items()}
        update()
        changed = {name for name, module in parts.items() if not same(before[name], module)}
        assert changed == ({phase} & set(parts))


def test_the_actors_backward_leaves_no_gradient_in_frozen_networks(variant):
    algorithm = learner(**variant)
    run_epochs(algorithm, 0, 2)
    for module in (algorithm.world_model, algorithm.critic):
        for parameter in module.parameters():
            parameter.grad = None
    algorithm.begin_epoch(2)
    algorithm.rollout()
    algorithm.update_actor()
    for module in (algorithm.world_model, algorithm.critic):
        assert all(parameter.grad is None and parameter.requires_grad for parameter in module.parameters())
    assert all(parameter.grad is not None for parameter in algorithm.actor.parameters())


def test_an_untrained_model_does_not_move_the_policy(variant):
    algorithm = learner(**variant)
    before = weights(algorithm.actor)
    algorithm.begin_epoch(0)
    algorithm.rollout()
    assert algorithm.update_actor() == {}
    assert algorithm.update_critic() == {}
    assert same(before, algorithm.actor)


@pytest.mark.parametrize(
    ("key", "updates"), [("warmup_epochs", [0, 0, 7, 9, 11]), ("wm_first_epoch", [2, 4, 11, 13, 15])]
)
def test_when_the_many_first_model_updates_come(key, updates):
    algorithm = learner(train=GROUNDED | {key: 3, "wm_updates": 2, "wm_first_updates": 7})
    counts = []
    for epoch in range(5):
        run_epochs(algorithm, epoch, epoch + 1)
        counts.append(algorithm.model_learner.updates)
    assert counts == updates


@pytest.mark.parametrize("imagination", ["alongside", "from_visited"])
def test_actor_and_critic_rest_until_the_models_many_first_updates(imagination):
    """Also while the model already learns a little from the first epochs."""
    algorithm = learner(train={"imagination": imagination, "wm_first_epoch": 4, "wm_updates": 2}, latent_dim=16)
    before = {name: weights(getattr(algorithm, name)) for name in ("actor", "critic")}
    for epoch in range(4):
        run_epochs(algorithm, epoch, epoch + 1)
        assert all(same(old, getattr(algorithm, name)) for name, old in before.items()), epoch
    assert algorithm.model_learner.updates == 2 * 3 + 3
    run_epochs(algorithm, 4, 5)
    assert not any(same(old, getattr(algorithm, name)) for name, old in before.items())


class FarFromZero(PointMassEnv):
    """The point mass with every reward 100 higher, so that their mean is far larger than their deviation."""

    def step(self, actions):
        step = super().step(actions)
        return step._replace(reward=step.reward + 100.0)


@pytest.mark.parametrize(("regression", "centered"), [("centered", True), ("raw", False)])
def test_the_first_reward_loss_is_about_the_variance_of_the_scaled_reward(regression, centered):
    env = FarFromZero(num_envs=16, seed=0, episode_length=20)
    algorithm = learner(
        env=env,
        latent_dim=16,
        train=PUBLISHED | {"regression": regression, "wm_first_updates": 1, "wm_reward_weight": 1.0, "gamma": 1.0},
    )
    loss = run_epochs(algorithm, 0, 1)["train/reward_loss"]
    assert (0.3 < loss < 3.0) if centered else (loss > 100.0)
    run_epochs(algorithm, 1, 2)  # the critic's first
    assert (algorithm.critic_learner.moments.mean > 100.0) == centered  # an untrained raw head imagines no reward
    assert algorithm.critic.offset == (algorithm.critic_learner.moments.mean.float() if centered else 0.0)


class OnceBroken(PointMassEnv):
    """One reward of one environment, of the fourth epoch, is a million."""

    taken = 0

    def step(self, actions):
        step = super().step(actions)
        self.taken += 1
        if self.taken == 16 * 3 + 5:
            step.reward[0] = 1e6
        return step


def test_one_outlying_reward_moves_no_center():
    train = GROUNDED | {"regression": "centered", "reward_scaling": "running_std"}
    found = []
    for kind in (PointMassEnv, OnceBroken):
        env = kind(num_envs=32, seed=0, episode_length=20)
        algorithm = learner(env=env, latent_dim=16, train=train, critic={"targets": "real", "states": "predicted"})
        run_epochs(algorithm, 0, 4)
        found.append([algorithm.critic.offset.item(), algorithm.world_model.reward_offset.item()])
    assert algorithm.counters()["train/outlying_rewards"] == 1
    assert found[1] == pytest.approx(found[0], rel=0.05)


def test_regression_is_centered_again_after_a_restart():
    first, second = (learner(seed=seed, latent_dim=16, train=PUBLISHED) for seed in (0, 1))
    run_epochs(first, 0, 2)
    load_deployable_state(second, copy.deepcopy(first.deployable_state()))
    assert second.critic.offset == first.critic.offset != 0
    assert second.world_model.reward_offset == first.world_model.reward_offset != 0


@pytest.mark.parametrize("split", [1, 4])
def test_resume_is_bit_exact(variant, split):
    """Also after the replay ring has wrapped (1,000 transitions, 256 an epoch) and in the middle of episodes."""
    last = 7
    whole = learner(seed=3, **variant)
    run_epochs(whole, 0, last)

    first = learner(seed=3, **variant)
    run_epochs(first, 0, split)
    state, env_state = copy.deepcopy(first.state_dict()), copy.deepcopy(first.collector.env.state_dict())
    run_epochs(first, split, last)  # what was saved must not change with what goes on

    second = learner(seed=99, **variant)
    second.load_state_dict(state)
    second.collector.env.load_state_dict(env_state)
    statistics = run_epochs(second, split, last)

    expected = run_epochs(whole, last, last + 1)
    assert statistics.keys() == expected.keys()
    found = run_epochs(second, last, last + 1)
    assert {name: value.item() for name, value in found.items()} == {n: v.item() for n, v in expected.items()}
    for name in ("world_model", "actor", "critic", "actor_learner.average"):
        get = operator.attrgetter(name)
        assert same(weights(get(whole)), get(second)), name
    for name, tensor in whole.collector.replay.state_dict().items():
        assert torch.equal(tensor, second.collector.replay.state_dict()[name]), name


def test_same_seed_same_bits_other_seed_other_bits(variant):
    first, second, third = (learner(seed=seed, **variant) for seed in (1, 1, 2))
    for algorithm in (first, second, third):
        run_epochs(algorithm, 0, 3)
    assert same(weights(first.actor), second.actor)
    assert not same(weights(first.actor), third.actor)


def test_deployable_state_acts_like_the_learner_it_came_from(variant):
    trained, fresh = learner(seed=1, **variant), learner(seed=2, **variant)
    run_epochs(trained, 0, 4)
    load_deployable_state(fresh, copy.deepcopy(trained.deployable_state()))
    obs = torch.randn(5, 3, 2)
    for algorithm in (trained, fresh):
        algorithm.rolled = algorithm.policy()
        algorithm.rolled.begin(3)
    for o in obs:
        for expected, found in zip(trained.rolled.act(o), fresh.rolled.act(o), strict=True):
            assert torch.equal(expected, found)


def test_open_loop_policy_looks_only_once_per_horizon():
    algorithm = learner(**VARIANTS["published"])
    run_epochs(algorithm, 0, 3)
    policy = algorithm.policy()
    policy.begin(2)
    obs = torch.randn(40, 2, 2)
    first = [policy.act(o)[0] for o in obs]
    changed = obs.clone()
    blind = [t for t in range(40) if t % 16]
    changed[blind] += 10.0
    policy.begin(2)
    assert all(torch.equal(policy.act(o)[0], expected) for o, expected in zip(changed, first, strict=True))
    changed[16] += 1.0
    policy.begin(2)
    assert not torch.equal(torch.stack([policy.act(o)[0] for o in changed]), torch.stack(first))


def test_closed_loop_policy_forgets_everything():
    algorithm = learner(**VARIANTS["grounded"])
    run_epochs(algorithm, 0, 3)
    policy = algorithm.policy()
    policy.begin(4)
    obs = torch.randn(4, 2)
    first = policy.act(obs)[0]
    policy.act(torch.randn(4, 2))
    assert torch.equal(policy.act(obs)[0], first)


def test_published_rollout_restarts_where_the_real_episode_ended():
    """Every environment is cut in the middle of the horizon: latents after it must come from the new observation."""
    env = PointMassEnv(num_envs=4, episode_length=5)
    algorithm = learner(env=env, latent_dim=16, train=PUBLISHED)
    algorithm.begin_epoch(0)
    algorithm.rollout()
    imagined, experience = algorithm._imagined, algorithm.collector.experience
    assert imagined.ended[4].all()
    assert not imagined.ended[:4].any()
    restarted = algorithm.encode(experience.obs[5])
    torch.testing.assert_close(imagined.latents[5], restarted)
    assert not torch.equal(imagined.next_latents[4], restarted)
    # the returns of the rollout, recomputed column by column from its own numbers
    values = algorithm.critic.min(imagined.next_latents)
    found = segment_returns(imagined.rewards, imagined.continues, values, gamma=0.9, ended=imagined.ended)
    ends = (4, 9, 14, 15)
    expected = torch.zeros(4)
    start = 0
    for end in ends:
        for t in range(start, end + 1):
            expected += 0.9 ** (t - start) * imagined.rewards[t]
        expected += 0.9 ** (end - start + 1) * values[end]
        start = end + 1
    torch.testing.assert_close(found, expected)


def test_published_actions_do_not_depend_on_observations_within_the_horizon():
    """Open loop: shifting what the environment shows changes nothing until the next epoch begins."""

    class Shifted(PointMassEnv):
        def step(self, actions):
            self.actions = [*getattr(self, "actions", []), actions.clone()]
            step = super().step(actions)
            return step._replace(obs=step.obs + self.shift)

    taken = []
    for shift in (0.0, 5.0):
        env = Shifted(num_envs=3, seed=0, episode_length=100)
        env.shift = shift
        algorithm = learner(env=env, latent_dim=16, train=PUBLISHED)
        algorithm.begin_epoch(0)
        algorithm.rollout()
        algorithm.rollout()
        taken.append(torch.stack(env.actions))
    assert torch.equal(taken[0][:16], taken[1][:16])
    assert not torch.equal(taken[0][16:], taken[1][16:])


@pytest.mark.parametrize("name", ["published", "grounded"])
def test_values_that_are_not_finite_are_refused_and_counted(name):
    class Poisoned(PointMassEnv):
        poison = False

        def step(self, actions):
            step = super().step(actions)
            return step._replace(reward=step.reward * float("nan")) if self.poison else step

    algorithm = learner(env=Poisoned(num_envs=8, episode_length=20), **VARIANTS[name])
    run_epochs(algorithm, 0, 3)
    before = {part: weights(getattr(algorithm, part)) for part in ("actor", "critic", "world_model")}
    algorithm.collector.env.poison = True
    run_epochs(algorithm, 3, 5)
    assert algorithm.nonfinite["environment"] == 2 * 16 * 8
    assert sum(int(count) for count in algorithm.nonfinite.values()) > 2 * 16 * 8
    for part in before:
        assert all(torch.isfinite(parameter).all() for parameter in getattr(algorithm, part).parameters())


def test_the_reward_head_learns_and_has_a_gradient():
    """What the policy climbs: after training, predictions follow the real reward and depend on the state."""
    algorithm = learner(latent_dim=16, train=PUBLISHED | {"wm_first_updates": 300, "wm_learning_rate": 3e-3})
    assert "train/reward_correlation" not in algorithm.rollout()  # nothing is known yet
    statistics = run_epochs(algorithm, 0, 2)
    assert statistics["train/reward_correlation"] > 0.9
    obs = algorithm.collector.experience.obs[0].clone().requires_grad_()
    algorithm.world_model.reward(algorithm.encode(obs), algorithm.collector.experience.actions[0]).sum().backward()
    towards_zero = -obs.grad[:, 0] * obs[:, 0].sign()
    assert towards_zero.mean() > 0.1


def test_learning_rates_follow_the_schedule():
    algorithm = learner(train=GROUNDED | {"max_epochs": 10, "final_learning_rate": 1e-5}, actor={"learning_rate": 1e-3})
    rates = []
    for epoch in (0, 5, 10):
        algorithm.begin_epoch(epoch)
        rates.append(algorithm.optimizers["actor"].learning_rate)
    assert rates == pytest.approx([1e-3, 5.05e-4, 1e-5])


def test_bfloat16_trains_and_keeps_float32_weights():
    algorithm = learner(**VARIANTS["grounded"] | {"train": GROUNDED | {"precision": "bfloat16"}})
    statistics = run_epochs(algorithm, 0, 4)
    assert all(math.isfinite(value) for value in statistics.values())
    assert all(parameter.dtype is torch.float32 for parameter in algorithm.world_model.parameters())
    assert all(int(count) == 0 for count in algorithm.nonfinite.values())


def test_the_averaged_policy_lags_behind_and_is_the_one_deployed():
    algorithm = learner(**VARIANTS["grounded"])
    run_epochs(algorithm, 0, 3)
    before, actor = weights(algorithm.actor_learner.average), weights(algorithm.actor)
    run_epochs(algorithm, 3, 4)
    for old, new, source in zip(
        before, algorithm.actor_learner.average.parameters(), algorithm.actor.parameters(), strict=True
    ):
        torch.testing.assert_close(new, old + 0.1 * (source - old))
    assert not same(actor, algorithm.actor_learner.average)
    assert algorithm.policy().actor is algorithm.actor_learner.average


@pytest.mark.parametrize(
    ("name", "wm_updates", "batch", "epochs"), [("published", 8, 128, 50), ("grounded", 4, 64, 40)]
)
def test_it_learns_the_point_mass(name, wm_updates, batch, epochs):
    """R must close at least 70% of the gap between the untrained and the best possible policy, within seconds."""
    env = PointMassEnv(num_envs=32, seed=4, episode_length=20)
    settings = copy.deepcopy(VARIANTS[name])
    settings["train"] |= {"wm_first_updates": 200, "wm_updates": wm_updates, "wm_batch_size": batch}
    settings["train"] |= {"wm_learning_rate": 2e-3, "replay_capacity": 50_000, "max_epochs": epochs}
    settings["actor"] = settings.get("actor", {}) | {"learning_rate": 2e-3}
    settings["critic"] = settings.get("critic", {}) | {"learning_rate": 2e-3, "passes": 4}
    algorithm = learner(seed=4, env=env, **settings)
    untrained = evaluate(algorithm)
    run_epochs(algorithm, 0, epochs)
    assert evaluate(algorithm) - untrained > 0.7 * (best_return() - untrained)


def best_return():
    env = PointMassEnv(num_envs=256, seed=123, episode_length=20)
    return env.best_return(env.reset()[:, 0]).mean().item()


def evaluate(algorithm):
    env = PointMassEnv(num_envs=256, seed=123, episode_length=20)
    policy, total, obs = algorithm.policy(), torch.zeros(256), env.reset()
    policy.begin(256)
    for _ in range(20):
        step = env.step(policy.act(obs)[0])
        total += step.reward
        obs = step.obs
    return total.mean().item()


@pytest.mark.parametrize("reacting", [True, False])
def test_the_weights_gradient_in_one_batch_is_the_one_through_the_rollout(reacting):
    algorithm = learner(train=GROUNDED)
    run_epochs(algorithm, 0, 3)
    z, actor = algorithm.encode(algorithm.collector.obs), algorithm.actor
    weights = list(actor.parameters())
    generator = torch.Generator().manual_seed(0)
    imagined = imagine(algorithm.world_model, actor, z, horizon=5, generator=generator, reacting=reacting)
    loss = imagined.rewards.square().sum()
    direct = torch.autograd.grad(loss, weights, retain_graph=True)
    batched = torch.autograd.grad(imagined.exploration.through_policy(loss, actor, imagined.latents), weights)
    assert any(gradient.abs().max() > 1e-3 for gradient in direct)
    for one, other in zip(direct, batched, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(one.abs().max()))


def test_a_rollouts_gradient_is_limited_by_the_median_of_the_others():
    gradient = torch.randn(5, 7, 2, generator=torch.Generator().manual_seed(0))
    gradient[:, 3] *= 1e6
    gradient[:, :2] = 0.0
    lengths = gradient.square().sum((0, 2)).sqrt()
    median = lengths[2:].median()
    found = limited(gradient, 1.5)
    torch.testing.assert_close(found.square().sum((0, 2)).sqrt(), lengths.clamp(max=1.5 * median))
    torch.testing.assert_close(found[:, 3] / found[:, 3].norm(), gradient[:, 3] / gradient[:, 3].norm())
    kept = lengths <= 1.5 * median
    assert torch.equal(found[:, kept], gradient[:, kept])
    assert torch.equal(limited(torch.zeros(2, 3, 1), 1.0), torch.zeros(2, 3, 1))
    assert not limited(torch.full((2, 3, 1), torch.inf), 1.0).isfinite().any()


def test_the_limit_on_a_rollouts_gradient_reaches_the_policy():
    weights = []
    for limit in (0.0, 1e9, 0.5):
        algorithm = learner(actor={"rollout_grad_limit": limit})
        run_epochs(algorithm, 0, 4)
        weights.append(torch.cat([p.detach().flatten() for p in algorithm.actor.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_predicted_states_are_the_models_from_the_first_on_and_restart_with_the_episode():
    env = PointMassEnv(num_envs=16, seed=0, episode_length=10)
    algorithm = learner(env=env, latent_dim=16, train=GROUNDED)
    algorithm.rollout()
    experience = algorithm.collector.experience
    latents = algorithm.encode(experience.obs)
    states = predicted(algorithm.world_model, experience, latents, algorithm.generator)
    assert experience.ended[9].all()
    with torch.no_grad():
        first = algorithm.world_model.unroll(latents[0], experience.actions[:9])
        second = algorithm.world_model.unroll(latents[10], experience.actions[10:15])
    torch.testing.assert_close(states, torch.cat((latents[:1], first, latents[10:11], second)))


def test_values_are_learned_at_predicted_states_too(monkeypatch):
    given = {}

    def fit(latents, targets):
        given.update(latents=latents, targets=targets)
        return {}

    algorithm = learner(latent_dim=16, train=GROUNDED, critic={"targets": "real", "states": "predicted"})
    monkeypatch.setattr(algorithm.critic_learner, "fit", fit)
    run_epochs(algorithm, 0, 3)
    latents, rolled = given["latents"].chunk(2)
    assert torch.equal(latents[0], rolled[0])
    assert not torch.equal(latents, rolled)
    assert torch.equal(*given["targets"].chunk(2))


def test_the_names_in_a_resumable_state_stay():
    """Runs that were begun by an earlier commit go on."""
    state = learner().state_dict()
    acting = {"world_model", "actor", "critic", "observations", "reward_scale", "value_targets"}
    learning = {"training_actor", "target_critic", "return_scale", "collector", "optimizers", "generator", "bad_steps"}
    progress = {"world_model_updates", "caught_up", "pretrain_left", "unfinished", "updates"}
    assert set(state) == acting | learning | progress
    assert set(state["optimizers"]) == {"actor", "critic", "world_model"}
    assert set(state["updates"]) == {"done", "total", "sums"}
