"""The Ant environment: meaning of what it returns, resets, determinism, resuming, and no needless work."""

from __future__ import annotations

import math
import tracemalloc

import pytest
import torch

from flowmbpo.envs import AntEnv
from flowmbpo.envs import ant as ant_module
from flowmbpo.physics import ant


def actions(num_envs: int, steps: int, seed: int = 0, size: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [size * (2 * torch.rand(num_envs, 8, generator=generator) - 1) for _ in range(steps)]


def reward_of(obs: torch.Tensor) -> torch.Tensor:
    return obs[:, 5] + 0.1 * obs[:, 27] + obs[:, 28] + (obs[:, 0] - 0.27)


def test_shapes_types_and_attributes():
    env = AntEnv(num_envs=5)
    obs = env.reset()
    step = env.step(torch.zeros(5, 8))
    assert (env.num_envs, env.obs_dim, env.action_dim, env.episode_length) == (5, 37, 8, 1000)
    assert env.device == torch.device("cpu")
    for tensor in (obs, step.obs, step.obs_before_reset):
        assert tensor.shape == (5, 37)
        assert tensor.dtype == torch.float32
        assert tensor.is_contiguous()
    assert step.reward.shape == step.terminated.shape == step.truncated.shape == (5,)
    assert step.terminated.dtype == step.truncated.dtype == torch.bool
    joint_q, joint_qd = env.get_state()
    assert joint_q.shape == (5, 15)
    assert joint_qd.shape == (5, 14)


def test_reward_is_that_of_the_observation_held_before():
    env = AntEnv(64, seed=1)
    held = env.reset().clone()
    for action in actions(64, 80):
        step = env.step(action)
        torch.testing.assert_close(step.reward, reward_of(held), rtol=1e-6, atol=1e-6)
        held = step.obs.clone()


def test_step_before_any_reset_scores_an_all_zero_observation():
    step = AntEnv(3).step(torch.zeros(3, 8))
    torch.testing.assert_close(step.reward, torch.full((3,), -0.27))


def test_observation_shows_the_clipped_action_until_a_reset():
    env = AntEnv(8, episode_length=2)
    assert torch.equal(env.reset()[:, 29:], torch.zeros(8, 8))
    action = actions(8, 1, size=2.0)[0]
    assert torch.equal(env.step(action).obs[:, 29:], action.clamp(-1, 1))
    step = env.step(action)
    assert step.truncated.all()
    assert torch.equal(step.obs_before_reset[:, 29:], action.clamp(-1, 1))
    assert torch.equal(step.obs[:, 29:], torch.zeros(8, 8))


def test_actions_beyond_one_act_as_one():
    small, large = AntEnv(4, seed=2), AntEnv(4, seed=2)
    small.reset(), large.reset()
    for action in actions(4, 5):
        assert torch.equal(small.step(action.sign()).obs, large.step(37.0 * action.sign()).obs)


def test_observation_follows_from_the_state():
    env = AntEnv(16, seed=3)
    env.reset()
    for action in actions(16, 10):
        obs = env.step(action).obs.double()
    q, qd = (t.double() for t in env.get_state())
    torch.testing.assert_close(obs[:, 0], q[:, 1])
    torch.testing.assert_close(obs[:, 1:5], q[:, 3:7])
    torch.testing.assert_close(obs[:, 5:8], qd[:, 3:6] + torch.linalg.cross(qd[:, :3], q[:, :3]), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(obs[:, 8:11], qd[:, :3])
    torch.testing.assert_close(obs[:, 11:19], q[:, 7:])
    torch.testing.assert_close(obs[:, 19:27], 0.1 * qd[:, 6:])
    x, y, z, w = q[:, 3:7].T
    torch.testing.assert_close(obs[:, 27], 2 * (y * z - w * x), atol=1e-6, rtol=1e-5)
    target = torch.stack((10000 - q[:, 0], -q[:, 2]), 1)
    forward = torch.stack((2 * (w * w + x * x) - 1, 2 * (x * z - w * y)), 1)
    torch.testing.assert_close(obs[:, 28], (forward * target).sum(1) / target.norm(dim=1), atol=1e-6, rtol=1e-5)


def test_state_goes_in_and_comes_out():
    env, other = AntEnv(7, seed=1), AntEnv(7, seed=2)
    env.reset(), other.reset()
    for action in actions(7, 20):
        env.step(action)
    q, qd = env.get_state()
    last = actions(7, 1, seed=5)[0]
    obs = other.set_state(q, qd, last)
    torch.testing.assert_close(other.get_state(), (q, qd), atol=1e-6, rtol=1e-6)
    assert torch.equal(obs[:, 29:], last)
    torch.testing.assert_close(obs[:, :29], env.set_state(q, qd)[:, :29])
    want = reward_of(obs).clone()
    torch.testing.assert_close(other.step(last).reward, want)


def test_falling_terminates_and_starts_again():
    env = AntEnv(512, seed=5)
    env.reset()
    ended = torch.zeros(512, dtype=torch.bool)
    for action in actions(512, 200):
        step = env.step(action)
        assert torch.equal(step.terminated, step.obs_before_reset[:, 0] < 0.27)
        assert not step.truncated.any()
        assert (step.obs[step.terminated, 0] > 0.6).all()
        assert torch.equal(step.obs[~step.terminated], step.obs_before_reset[~step.terminated])
        ended |= step.terminated
    assert ended.float().mean() > 0.9


def test_truncation_is_not_termination():
    env = AntEnv(3, episode_length=4)
    env.reset()
    for count in range(1, 9):
        step = env.step(torch.zeros(3, 8))
        assert not step.terminated.any()
        assert bool(step.truncated.all()) == (count % 4 == 0)


def test_early_termination_can_be_switched_off():
    env = AntEnv(64, early_termination=False)
    env.reset()
    lowest = torch.full((64,), 9.0)
    for action in actions(64, 150):
        step = env.step(action)
        assert not step.terminated.any()
        lowest = torch.minimum(lowest, step.obs[:, 0])
    assert (lowest < 0.27).any()


def test_a_lost_environment_stays_alone_and_lives_until_truncation():
    """NaN compares false with the height limit; its neighbours in the same sixteen lanes do not notice."""
    env, clean = AntEnv(16, seed=1, episode_length=6), AntEnv(16, seed=1, episode_length=6)
    env.reset(), clean.reset()
    bad = torch.zeros(16, 8)
    bad[3, 2] = math.nan
    others = [i for i in range(16) if i != 3]
    for count in range(1, 7):
        step, want = env.step(bad), clean.step(torch.zeros(16, 8))
        assert torch.equal(step.obs[others], want.obs[others])
        assert step.obs_before_reset[3].isnan().any()
        assert not step.terminated[3]
        assert bool(step.truncated[3]) == (count == 6)
    assert step.obs[3].isfinite().all()


def test_reset_distribution():
    """Ranges and means of 20,000 starts, against the uniform distributions of the reference."""
    n = 20_000
    env = AntEnv(n, seed=11)
    env.reset()
    q, qd = (t.double() for t in env.get_state())

    def uniform(values: torch.Tensor, half_width: float) -> None:
        assert values.abs().max() <= half_width * (1 + 1e-5)
        assert values.abs().max() > 0.999 * half_width
        sigma = half_width / math.sqrt(3)
        assert values.mean(0).abs().max() < 5 * sigma / math.sqrt(n)
        torch.testing.assert_close(values.std(0), torch.full_like(values[0], sigma), rtol=0.02, atol=0.0)

    uniform(q[:, :3] - torch.tensor([0.0, 0.75, 0.0]), 0.1)
    uniform(q[:, 7:] - torch.tensor(ant.START_ANGLES), 0.2)
    uniform(qd[:, :3], 0.25)
    uniform(qd[:, 6:], 0.25)
    uniform(qd[:, 3:6], 0.25 + 1e-7)
    # start * delta = q, so delta = conjugate(start) * q
    s = math.sqrt(0.5)
    x, y, z, w = q[:, 3:7].T
    delta = torch.stack((s * (x + w), s * (y - z), s * (z + y), s * (w - x)), 1)
    torch.testing.assert_close(delta.norm(dim=1), torch.ones(n).double(), atol=1e-6, rtol=0.0)
    angle = 2 * torch.asin(delta[:, :3].norm(dim=1))
    assert angle.max() <= math.pi / 24 + 1e-6
    assert angle.mean() == pytest.approx(math.pi / 48, rel=0.02)
    axis = delta[:, :3] / delta[:, :3].norm(dim=1, keepdim=True)
    cube = 2 * torch.rand(200_000, 3, generator=torch.Generator().manual_seed(0)).double() - 1
    want = (cube / cube.norm(dim=1, keepdim=True)).pow(4).mean()  # differs between cube and sphere (0.2)
    assert axis.pow(4).mean() == pytest.approx(float(want), abs=0.003)
    numbers = torch.cat((q[:, :3], q[:, 7:], qd), 1)
    correlation = torch.corrcoef(numbers.T) - torch.eye(25)
    assert correlation.abs().max() < 5 / math.sqrt(n)


def test_without_stochastic_init_every_start_is_the_start_pose():
    env = AntEnv(4, stochastic_init=False)
    env.reset()
    q, qd = env.get_state()
    pose = torch.tensor([0.0, 0.75, 0.0, *ant.START_QUATERNION, *ant.START_ANGLES])
    torch.testing.assert_close(q, pose.expand(4, 15), atol=1e-7, rtol=0.0)
    assert torch.equal(qd, torch.zeros(4, 14))


def test_every_episode_of_every_environment_starts_differently():
    env = AntEnv(100, seed=0, episode_length=1)
    starts = [env.reset().clone()] + [env.step(torch.zeros(100, 8)).obs.clone() for _ in range(50)]
    assert torch.cat(starts)[:, 0].unique().numel() > 0.99 * 51 * 100


def rollout(num_envs: int, seed: int, steps: int = 120) -> torch.Tensor:
    """Everything that environment 0 returns; the others act at random and differently in every batch."""
    env = AntEnv(num_envs, seed=seed)
    seen = [env.reset()[0].clone()]
    for own, rest in zip(actions(1, steps), actions(num_envs, steps, seed=num_envs), strict=True):
        rest[0] = own[0]
        step = env.step(rest)
        flags = torch.stack((step.terminated[0], step.truncated[0]))
        seen.append(torch.cat((step.obs[0], step.obs_before_reset[0], step.reward[:1], flags)))
    return torch.cat(seen)


def test_environment_is_bit_equal_in_any_batch():
    alone = rollout(1, seed=3)
    for num_envs in (7, 16, 17, 1024):
        assert torch.equal(alone, rollout(num_envs, seed=3))


def test_number_of_threads_changes_no_bit(monkeypatch):
    """Every environment, at 19 groups of which the last is not full, split over one thread and over three."""

    def everything(threads: int) -> torch.Tensor:
        monkeypatch.setattr(ant_module.torch, "get_num_threads", lambda: threads)
        env = AntEnv(300, seed=3)
        assert len(env._shares()) == threads
        env.reset()
        return torch.stack([env.step(action).obs.clone() for action in actions(300, 60)])

    monkeypatch.setattr(ant_module, "MIN_GROUPS_PER_THREAD", 4)
    assert torch.equal(everything(1), everything(3))


def test_same_seed_same_bits_other_seed_other_bits():
    assert torch.equal(rollout(5, seed=8), rollout(5, seed=8))
    assert not torch.equal(rollout(5, seed=8), rollout(5, seed=9))


def test_reseeding_is_like_a_fresh_environment():
    used, fresh = AntEnv(6, seed=1), AntEnv(6, seed=9)
    used.reset()
    for action in actions(6, 30):
        used.step(action)
    used.reseed(9)
    assert torch.equal(used.reset(), fresh.reset())


def test_resumed_environment_is_bit_equal():
    env = AntEnv(50, seed=4, episode_length=40)
    env.reset()
    for action in actions(50, 30):
        env.step(action)
    saved = env.state_dict()
    resumed = AntEnv(50, seed=99, episode_length=40)
    resumed.load_state_dict(saved)
    for action in actions(50, 60, seed=7):
        for a, b in zip(env.step(action), resumed.step(action), strict=True):
            assert torch.equal(a, b)


def test_saved_state_is_refused_where_it_does_not_fit():
    saved = AntEnv(4).state_dict()
    with pytest.raises(ValueError, match=r"shape \(4, 40\), this environment needs \(5, 40\)"):
        AntEnv(5).load_state_dict(saved)
    del saved["steps"]
    with pytest.raises(ValueError, match="has no 'steps'"):
        AntEnv(4).load_state_dict(saved)


def test_one_lane_computes_what_sixteen_do(monkeypatch):
    """The formulas of the GPU (one environment a thread, rows outermost) against those of the CPU, both run here."""
    wide = AntEnv(40, seed=6)
    monkeypatch.setattr(ant_module, "WIDTH", 1)
    single = AntEnv(40, seed=6)
    assert torch.equal(wide.reset(), single.reset())
    for action in actions(40, 12):
        a, b = wide.step(action), single.step(action)
        torch.testing.assert_close(a.obs, b.obs, atol=2e-4, rtol=2e-4)
        torch.testing.assert_close(a.reward, b.reward, atol=2e-4, rtol=2e-4)


def test_step_allocates_nothing():
    """The returned tensors are the same memory every time and Python's heap does not grow with the steps."""
    env = AntEnv(128, seed=0)
    env.reset()
    action = actions(128, 1)[0]
    pointers = [t.data_ptr() for t in env.step(action)]
    tracemalloc.start()
    for _ in range(2500):  # until CPython's free list of the tuples in Warp's launch code, 2000 long, is full
        env.step(action)
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(1000):
        step = env.step(action)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [t.data_ptr() for t in step] == pointers
    assert after - before < 4096


def test_actions_with_a_gradient_leave_no_graph_behind():
    env = AntEnv(2)
    env.reset()
    action = torch.zeros(2, 8, requires_grad=True)
    assert not env.step(action).obs.requires_grad


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_envs": 0}, "num_envs is 0; allowed: a whole number of at least 1"),
        ({"num_envs": 2.5}, "num_envs is 2.5; allowed: a whole number of at least 1"),
        ({"episode_length": 0}, "episode_length is 0; allowed: a whole number of at least 1"),
        ({"mass_matrix_interval": 0}, "mass_matrix_interval is 0; allowed: a whole number from 1 to 16"),
        ({"mass_matrix_interval": 17}, "mass_matrix_interval is 17; allowed: a whole number from 1 to 16"),
        ({"seed": -1}, "seed is -1; allowed: a whole number from 0"),
        ({"device": "tpu"}, "device is 'tpu'; allowed: 'cpu', 'cuda', 'cuda:N'"),
        ({"device": "meta"}, "device is 'meta'; allowed: 'cpu', 'cuda', 'cuda:N'"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        AntEnv(**{"num_envs": 2, **arguments})


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_missing_gpu_is_named():
    with pytest.raises(ValueError, match="torch finds no CUDA GPU on this machine; use 'cpu'"):
        AntEnv(2, device="cuda")


def test_wrong_shapes_are_refused():
    env = AntEnv(3)
    with pytest.raises(ValueError, match=r"actions have shape \(3, 7\); expected \(3, 8\)"):
        env.step(torch.zeros(3, 7))
    with pytest.raises(ValueError, match=r"joint_q has shape \(2, 15\); expected \(3, 15\)"):
        env.set_state(torch.zeros(2, 15), torch.zeros(3, 14))
    with pytest.raises(ValueError, match=r"last_action has shape \(3, 9\); expected \(3, 8\)"):
        env.set_state(torch.zeros(3, 15), torch.zeros(3, 14), torch.zeros(3, 9))
