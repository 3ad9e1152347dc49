"""Running moments against NumPy-style statistics of everything seen, and what scaling must never do to rewards."""

import pytest
import torch

from flowmbpo.algorithms.normalizers import ObservationNormalizer, RunningMoments, Scale

CPU = torch.device("cpu")


def test_moments_of_batches_are_those_of_their_union():
    batches = [torch.randn(n, 3) * 2 + n for n in (5, 1, 200)]
    moments = RunningMoments((3,), CPU)
    for batch in batches:
        moments.update(batch)
    everything = torch.cat(batches)
    torch.testing.assert_close(moments.mean.float(), everything.mean(0))
    torch.testing.assert_close(moments.std, everything.std(0, correction=0))
    assert moments.count == 206


def test_moments_do_not_lose_precision_far_from_zero():
    moments = RunningMoments((), CPU)
    for _ in range(100):
        moments.update(10_000.0 + torch.tensor([-0.5, 0.5]))
    assert moments.std.item() == pytest.approx(0.5, rel=1e-3)


def test_moments_leave_out_a_batch_that_is_not_finite():
    moments = RunningMoments((2,), CPU)
    moments.update(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    before = {name: tensor.clone() for name, tensor in moments.state_dict().items()}
    moments.update(torch.tensor([[1.0, float("nan")]]))
    moments.update(torch.tensor([[float("inf"), 0.0]]))
    assert all(torch.equal(before[name], tensor) for name, tensor in moments.state_dict().items())


def test_nothing_seen_means_no_change():
    x = torch.tensor([3.0, -2.0])
    assert torch.equal(Scale("running_std", CPU)(x), x)
    assert torch.equal(ObservationNormalizer(2, CPU, enabled=True, limit=8.0)(x), x)


def test_observations_are_centred_scaled_and_bounded():
    normalizer = ObservationNormalizer(2, CPU, enabled=True, limit=8.0)
    normalizer.update(torch.tensor([[0.0, 5.0], [4.0, 5.0]]))  # mean 2, std 2; the second feature is constant
    assert normalizer(torch.tensor([4.0, 5.0])).tolist() == [1.0, 0.0]
    assert normalizer(torch.tensor([-1e6, 5.001])).tolist() == pytest.approx([-normalizer.limit, 0.1], abs=1e-3)
    off = ObservationNormalizer(2, CPU, enabled=False, limit=8.0)
    off.update(torch.tensor([[0.0, 5.0], [4.0, 5.0]]))
    assert off(torch.tensor([4.0, 5.0])).tolist() == [4.0, 5.0]


def test_normalizing_does_not_change_its_input():
    normalizer = ObservationNormalizer(1, CPU, enabled=True, limit=8.0)
    normalizer.update(torch.tensor([[0.0], [4.0]]))
    obs = torch.tensor([[7.0]])
    normalizer(obs)
    assert obs.item() == 7.0


@pytest.mark.parametrize("kind", ["running_std", "none"])
def test_standing_stays_better_than_dead(kind):
    """An Ant that stands earns 1.4 a step, one that fell earns nothing more: also after the policy learned to walk.

    Subtracting the mean (5 to 6 a step while walking) would make standing worth about -140 and dying worth 0.
    """
    scale = Scale(kind, CPU)
    scale.update(1.4 + 0.1 * torch.randn(5_000))
    scale.update(6.0 + torch.randn(50_000))
    standing = scale(torch.tensor(1.4)) / (1 - 0.99)
    dead = scale(torch.tensor(0.0))
    assert dead == 0.0
    assert standing > 10.0


@pytest.mark.parametrize("kind", ["running_std", "none"])
def test_scaling_keeps_order_and_ratios(kind):
    scale = Scale(kind, CPU)
    scale.update(torch.randn(1000) * 7 + 3)
    scaled = scale(torch.tensor([-2.0, 0.0, 1.0, 3.0]))
    torch.testing.assert_close(scaled[3] / scaled[2], torch.tensor(3.0))
    assert (scaled.diff() > 0).all()


def test_scale_has_a_floor():
    scale = Scale("running_std", CPU)
    scale.update(torch.full((100,), 3.0))
    assert scale.value == pytest.approx(Scale.MIN)


def test_states_come_back_exactly():
    first = ObservationNormalizer(4, CPU, enabled=True, limit=8.0)
    first.update(torch.randn(50, 4) * 3)
    second = ObservationNormalizer(4, CPU, enabled=True, limit=8.0)
    second.load_state_dict({name: tensor.clone() for name, tensor in first.state_dict().items()})
    x = torch.randn(9, 4)
    assert torch.equal(first(x), second(x))


def test_one_outlying_reward_does_not_poison_the_scale_and_is_counted():
    clean, hit = Scale("running_std", CPU), Scale("running_std", CPU)
    for batch in range(3):
        rewards = torch.randn(2048, generator=torch.Generator().manual_seed(batch)) + 1.4
        clean.update(rewards)
        rewards[batch * 7] = 1e12 if batch != 1 else -1e6
        hit.update(rewards)
    assert hit.moments.outliers == 3
    assert clean.moments.outliers == 0
    torch.testing.assert_close(hit.value, clean.value, rtol=1e-2, atol=0)
    torch.testing.assert_close(hit.center, clean.center, rtol=1e-2, atol=0)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_reward_that_is_no_number_makes_no_outliers_of_the_others(broken):
    rewards = torch.randn(2048, generator=torch.Generator().manual_seed(0)) + 1.4
    clean, hit = Scale("running_std", CPU), Scale("running_std", CPU)
    clean.update(rewards)
    rewards[7] = broken
    hit.update(rewards)
    assert hit.moments.outliers == 1
    torch.testing.assert_close(hit.value, clean.value, rtol=1e-2, atol=0)


@pytest.mark.parametrize("count", [3, 64])
def test_among_few_rewards_the_outlier_is_not_its_own_measure(count):
    rewards = torch.linspace(0, 1, count)
    rewards[1] = 1e12
    scale = Scale("running_std", CPU)
    scale.update(rewards)
    assert scale.moments.outliers == 1
    assert scale.value < 1


def test_a_reward_that_was_constant_so_far_may_begin_to_vary():
    scale = Scale("running_std", CPU)
    scale.update(torch.zeros(100))
    scale.update(torch.cat((torch.zeros(60), torch.ones(40))))
    assert scale.moments.outliers == 0
    assert scale.value > 0.3
