"""The critic finds the values of a chain whose values are known in closed form."""

import pytest
import torch

from flowmbpo.algorithms.critic_learner import CriticLearner
from flowmbpo.algorithms.imagination import Transitions
from flowmbpo.models.critic import Critic
from flowmbpo.spec.schema import CriticSpec, TrainSpec

GAMMA = 0.9


def chain(terminates):
    """States 0, 1, 2, 3 in a row, reward 1 each; the last step ends the episode or stays in state 3 for ever."""
    z = torch.eye(4)
    ended = torch.zeros(4, 8, dtype=torch.bool)
    ended[3] = terminates
    return Transitions(
        latents=z[:, None].expand(4, 8, 4),
        next_latents=z[[1, 2, 3, 3]][:, None].expand(4, 8, 4),
        rewards=torch.ones(4, 8),
        continues=1.0 - ended.float(),
        ended=ended,
    )


@pytest.mark.parametrize("terminates", [True, False])
def test_values_converge_to_the_closed_form(terminates):
    torch.manual_seed(0)
    critic = Critic(latent_dim=4, units=(32,), activation="silu", ensemble=3)
    learner = CriticLearner(
        critic,
        spec=CriticSpec(learning_rate=3e-3, passes=4, minibatches=3),
        train=TrainSpec(max_epochs=1, gamma=GAMMA, td_lambda=0.8, adam_betas=(0.9, 0.99)),
        generator=torch.Generator().manual_seed(0),
    )
    for _ in range(150):
        seen = chain(terminates)
        statistics = learner.fit(seen.latents, learner.targets(seen))
    if terminates:
        expected = [sum(GAMMA**k for k in range(4 - state)) for state in range(4)]
    else:
        expected = [1 / (1 - GAMMA)] * 4
    torch.testing.assert_close(critic.values(torch.eye(4)), torch.tensor(expected).expand(3, 4), atol=0.15, rtol=0.02)
    assert statistics["train/value_loss"] < 0.01
