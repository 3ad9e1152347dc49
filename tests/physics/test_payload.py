"""An Ant that carries a payload, against the independent float64 program with a heavier torso."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from flowmbpo.envs import DisturbedAnt
from tests.physics import reference_ant as reference
from tests.physics.ants import put, random_states, state_of


def test_payload_moves_as_mechanics_says(monkeypatch):
    """Against the dense float64 program with a heavier torso, flying and in contact."""
    env = DisturbedAnt(12, payload=80.0, early_termination=False, seed=2)
    env.reset()
    masses = env.state_dict()["payload"]
    assert 0 < masses.min() < 30
    assert 50 < masses.max() < 80
    q, qd = (x.astype(np.float32).astype(float) for x in random_states(12, seed=7, height=0.6, speed=2.0))
    action = 2 * torch.rand(12, 8, generator=torch.Generator().manual_seed(0)) - 1
    put(env, q, qd)
    env.step(action)
    own_q, own_qd = state_of(env)
    torso = reference.LINKS[0]
    for i in range(12):
        heavier = dataclasses.replace(torso, mass=torso.mass + float(masses[i]))
        monkeypatch.setattr(reference, "LINKS", (heavier, *reference.LINKS[1:]))
        want_q, want_qd = reference.control_step(q[i], qd[i], action[i].numpy(), 16)
        np.testing.assert_allclose(own_q[i], want_q, atol=2e-5 * (1 + np.abs(want_qd).max()))
        np.testing.assert_allclose(own_qd[i], want_qd, atol=3e-5 * (1 + np.abs(want_qd).max()))
