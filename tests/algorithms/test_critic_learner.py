"""The critic finds the values of a chain whose values are known in closed form; what an end is worth."""

import pytest
import torch

from flowmbpo.algorithms.critic_learner import CriticLearner
from flowmbpo.algorithms.imagination import Transitions, imagine, values_at_segment_ends
from flowmbpo.algorithms.returns import segment_returns
from flowmbpo.models.actor import Actor
from flowmbpo.models.critic import Critic
from flowmbpo.spec.schema import CriticSpec, TrainSpec
from tests.algorithms.small_learner import world_model

GAMMA = 0.9


def chain(terminates, last=3):
    """States 0, 1, 2, 3 in a row, reward 1 each; step `last` ends the episode, or state 3 is kept for ever."""
    z = torch.eye(4)
    ended = torch.zeros(4, 8, dtype=torch.bool)
    ended[last] = terminates
    return Transitions(
        latents=z[:, None].expand(4, 8, 4),
        next_latents=z[[1, 2, 3, 3]][:, None].expand(4, 8, 4),
        rewards=torch.ones(4, 8),
        continues=1.0 - ended.float(),
        ended=ended,
    )


def small_critic(latent_dim=4):
    torch.manual_seed(0)
    return CriticLearner(
        Critic(latent_dim=latent_dim, units=(32,), activation="silu", ensemble=3),
        spec=CriticSpec(learning_rate=3e-3, passes=4, minibatches=3),
        train=TrainSpec(max_epochs=1, gamma=GAMMA, td_lambda=0.8, adam_betas=(0.9, 0.99)),
        generator=torch.Generator().manual_seed(0),
    )


def worth(learner, seen):
    """What the actor maximises of each rollout."""
    values = values_at_segment_ends(learner.target, seen)
    return segment_returns(seen.rewards, seen.continues, values, gamma=GAMMA, ended=seen.ended)


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("terminates", [True, False])
def test_values_converge_to_the_closed_form(terminates, centered):
    learner = small_critic()
    critic = learner.critic
    for _ in range(150):
        seen = chain(terminates)
        targets = learner.targets(seen)
        if centered:
            learner.center()
        statistics = learner.fit(seen.latents, targets)
    assert (critic.offset > 1.0) == centered
    if terminates:
        expected = [sum(GAMMA**k for k in range(4 - state)) for state in range(4)]
    else:
        expected = [1 / (1 - GAMMA)] * 4
    torch.testing.assert_close(critic.values(torch.eye(4)), torch.tensor(expected).expand(3, 4), atol=0.15, rtol=0.02)
    assert statistics["train/value_loss"] < 0.01


@pytest.mark.parametrize("last", [1, 3])
def test_centering_adds_nothing_to_what_an_end_is_worth(last):
    learner = small_critic()
    learner.targets(chain(False))
    learner.center()
    assert learner.target.offset > 1.0
    ends, stays = chain(True, last), chain(False)
    bootstrap = learner.target.min(stays.next_latents)
    assert (learner.targets(ends)[last] == 1.0).all()
    assert torch.equal(learner.targets(stays)[3], 1.0 + GAMMA * bootstrap[3])
    until, after = (sum(GAMMA**k for k in range(steps)) for steps in (last + 1, 3 - last))
    beyond = GAMMA ** (3 - last) * bootstrap[3] if last < 3 else 0.0  # of the episode that follows
    torch.testing.assert_close(worth(learner, ends), until + after + beyond + torch.zeros(8))
    torch.testing.assert_close(worth(learner, stays), sum(GAMMA**k for k in range(4)) + GAMMA**4 * bootstrap[3])


@pytest.mark.parametrize("goes_on", [0.0, 1.0])
def test_an_imagined_end_is_worth_its_own_reward(goes_on):
    """With offsets as of a policy that walks well: an untrained head imagines the mean reward, also of an end."""
    learner = small_critic(latent_dim=16)
    learner.critic.offset.fill_(100.0)
    model = world_model(2, 1, latent_dim=16)
    model.reward_offset.fill_(5.0)
    torch.nn.init.constant_(model.continuation_head.last.bias, 200.0 if goes_on else -200.0)  # is sure of it
    actor = Actor(latent_dim=16, action_dim=1, units=(8,), activation="silu", log_std_init=-1.0, log_std_min=-2.0)
    with torch.no_grad():
        z = model.encode(torch.randn(8, 2))
        seen = imagine(model, actor, z, horizon=3, generator=torch.Generator().manual_seed(0))
        targets, returns = learner.targets(seen), worth(learner, seen)
    assert (seen.continues == goes_on).all()
    if goes_on:
        assert (targets > 50.0).all()
        assert (returns > 50.0).all()
    else:
        assert (targets == 5.0).all()
        assert (returns == 5.0).all()
