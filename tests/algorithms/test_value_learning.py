"""The critic finds the values of a chain whose values are known in closed form."""

import contextlib

import pytest
import torch

from flowmbpo.algorithms.imagination import Transitions
from flowmbpo.algorithms.optimization import GuardedAdam
from flowmbpo.algorithms.value_learning import fit_values, value_targets
from flowmbpo.models.critic import Critic

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
    optimizer = GuardedAdam(list(critic.parameters()), learning_rate=3e-3, betas=(0.9, 0.99), grad_norm=100.0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        seen = chain(terminates)
        statistics = fit_values(
            critic,
            critic,
            0.0,
            optimizer,
            seen.latents,
            value_targets(critic, seen, gamma=GAMMA, td_lambda=0.8),
            passes=4,
            minibatches=3,
            generator=generator,
            precision=contextlib.nullcontext,
        )
    if terminates:
        expected = [sum(GAMMA**k for k in range(4 - state)) for state in range(4)]
    else:
        expected = [1 / (1 - GAMMA)] * 4
    torch.testing.assert_close(critic.values(torch.eye(4)), torch.tensor(expected).expand(3, 4), atol=0.15, rtol=0.02)
    assert statistics["train/value_loss"] < 0.01
