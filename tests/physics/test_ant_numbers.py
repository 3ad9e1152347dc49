"""The Ant's numbers: closed forms, and the constants recorded from the reference simulator."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from flowmbpo.physics import ant


def test_capsule_without_cylinder_is_a_sphere():
    mass, inertia = ant.capsule_inertia(0.3, 0.0)
    sphere_mass, sphere = ant.sphere_inertia(0.3)
    assert mass == pytest.approx(sphere_mass)
    np.testing.assert_allclose(inertia, sphere)


def test_long_capsule_approaches_a_rod():
    mass, inertia = ant.capsule_inertia(0.001, 10.0)
    assert inertia[1, 1] == pytest.approx(mass * 10.0**2 / 12, rel=1e-3)
    assert inertia[0, 0] == pytest.approx(mass * 0.001**2 / 2, rel=1e-3)


def test_leg_tensor_is_the_element_wise_one():
    """At 45 degrees the squares of the rotation's diagonal are 1/2, 1/2, 1 and nothing is off the diagonal."""
    foot = ant.links()[2]
    _, own = ant.capsule_inertia(ant.LIMB_RADIUS, ant.FOOT_LENGTH)
    np.testing.assert_allclose(foot.inertia, np.diag([own[0, 0] / 2, own[1, 1] / 2, own[2, 2]]), atol=1e-12)


def test_total_mass():
    volume = 4 / 3 * math.pi * 0.25**3
    for length in [math.hypot(0.2, 0.2)] * 8 + [math.hypot(0.4, 0.4)] * 4:
        volume += math.pi * 0.08**2 * length + 4 / 3 * math.pi * 0.08**3
    assert sum(link.mass for link in ant.links()) == pytest.approx(1000.0 * volume)


def test_all_links_match_the_recorded_model(shared_dir):
    recorded = json.loads((shared_dir / "golden" / "ant_model.json").read_text())
    assert sum(link.mass for link in ant.links()) == pytest.approx(recorded["total_mass"], rel=1e-12)
    for link, own in zip(recorded["links"], ant.links(), strict=True):
        assert own.mass == pytest.approx(link["mass"], rel=1e-12)
        np.testing.assert_allclose(own.com, link["com"], atol=1e-15)
        np.testing.assert_allclose(own.inertia, link["inertia_com_3x3"], rtol=1e-12, atol=1e-14)
    hips, ankles = recorded["links"][1::2], recorded["links"][2::2]
    for hip, ankle, sign in zip(hips, ankles, ant.ANKLE_SIGN, strict=True):
        assert hip["limit_upper"] == pytest.approx([ant.HIP_LIMIT])
        limits = sorted(sign * x for x in (ankle["limit_lower"][0], ankle["limit_upper"][0]))
        assert limits == pytest.approx([ant.ANKLE_LOWER, ant.ANKLE_UPPER])
        assert ankle["target_kd"] + ankle["limit_kd"] == ant.JOINT_DAMPING
    assert recorded["start"]["joint_q"] == list(ant.START_ANGLES)
    assert recorded["start"]["rot_xyzw"] == pytest.approx(ant.START_QUATERNION)
