"""Where the Ant's links are: closed forms, the reference's numbers, and the simulator's own bodies."""

import json
import math

import numpy as np
import pytest

from flowmbpo.physics import ant, ant_pose

START = np.array([0.0, ant.START_HEIGHT, 0.0, *ant.START_QUATERNION, *ant.START_ANGLES])


def ends(joint_q):
    """World positions (C, 2, 3) of the capsules' ends."""
    poses = ant_pose.link_poses(joint_q)
    return np.array(
        [
            [poses[c.link, :3] + ant_pose.rotate(poses[c.link, 3:], np.array(end)) for end in (c.start, c.end)]
            for c in ant_pose.capsules()
        ]
    )


def test_the_feet_clear_the_ground_in_the_start_pose():
    lowest = [
        point[1, 1] - c.radius for point, c in zip(ends(START), ant_pose.capsules(), strict=True) if "foot" in c.part
    ]
    # torso height less the foot's drop; the ankles are bent by one radian
    expected = ant.START_HEIGHT - ant.FOOT_LENGTH * math.sin(1.0) - ant.LIMB_RADIUS
    assert lowest == pytest.approx([expected] * 4)
    assert expected == pytest.approx(0.194, abs=5e-4)


def test_limbs_hang_together():
    rng = np.random.default_rng(0)
    q = np.concatenate([rng.normal(size=7), rng.uniform(-1, 1, 8)])
    q[3:7] /= np.linalg.norm(q[3:7])
    found = ends(q)
    np.testing.assert_allclose(found[0, 0], q[:3])
    for leg in range(4):
        stub, upper, foot = found[1 + 3 * leg : 4 + 3 * leg]
        np.testing.assert_allclose(upper[0], stub[1], atol=1e-12)
        np.testing.assert_allclose(foot[0], upper[1], atol=1e-12)
        lengths = [np.linalg.norm(end - start) for start, end in (stub, upper, foot)]
        np.testing.assert_allclose(lengths, [ant.STUB_LENGTH, ant.UPPER_LENGTH, ant.FOOT_LENGTH])


def test_a_hinge_turns_about_its_axis():
    """Leg 1 (at 45 degrees): a hip of 45 degrees brings it to the robot's y, a straight ankle keeps the foot level."""
    q = np.zeros(15)
    q[6] = 1.0
    q[7] = math.pi / 4
    upper, foot = ends(q)[2:4]
    np.testing.assert_allclose(upper[1] - upper[0], [0, ant.UPPER_LENGTH, 0], atol=1e-12)
    np.testing.assert_allclose(foot[1] - foot[0], [0, ant.FOOT_LENGTH, 0], atol=1e-12)
    q[8] = math.pi / 2  # straight down in the robot's frame
    np.testing.assert_allclose(np.diff(ends(q)[3], axis=0)[0], [0, 0, -ant.FOOT_LENGTH], atol=1e-12)


def test_batches_of_any_shape():
    batch = np.stack([START, START + 0.1])[:, None]
    assert ant_pose.link_poses(batch).shape == (2, 1, 9, 7)
    np.testing.assert_array_equal(ant_pose.link_poses(batch)[1, 0], ant_pose.link_poses(START + 0.1))
    with pytest.raises(ValueError, match="14 entries, expected 15"):
        ant_pose.link_poses(np.zeros(14))


def test_shapes_touch_the_ground_where_the_reference_does(shared_dir):
    """Its contact candidates are the centres of all end caps, coincident ones kept."""
    model = json.loads((shared_dir / "golden" / "ant_model.json").read_text())
    expected = sorted(
        (point["link"], *(round(x, 3) + 0.0 for x in point["point_local"]), round(point["radius"], 3))
        for point in model["contact_points"]
    )
    ours = sorted(
        (capsule.link, *(round(x, 3) + 0.0 for x in point), capsule.radius)
        for capsule in ant_pose.capsules()
        for point in ((capsule.start, capsule.end) if capsule.start != capsule.end else (capsule.start,))
    )
    assert len(expected) == 25
    assert ours == expected
