"""The linear world model: our verbs `next` and `loss` for one layer."""

import torch
from torch import nn

from flowmbpo.models.dynamics import Dynamics, squared_error


class Linear(Dynamics):
    """z' = z + W [z, a] + b; with b = 0 where there is no bias."""

    evaluations_per_step, loss_evaluations, learns_from_prediction = 1, 0.0, True

    def __init__(self, *, latent_dim, action_dim, bias, **of_networks):
        super().__init__()
        self.change = nn.Linear(latent_dim + action_dim, latent_dim, bias=bias)
        nn.init.zeros_(self.change.weight)

    def next(self, z, action):
        return z + self.change(torch.cat((z, action), dim=-1))

    def loss(self, z, action, z_target, *, z_next=None, generator=None):
        return squared_error(self.next(z, action) if z_next is None else z_next, z_target)
