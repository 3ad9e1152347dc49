"""Films and pictures without a GPU: rays against brute force, filters against sums, files against their decoders."""

import numpy as np
import pytest
from PIL import Image
from walking import ball, walk

from flowmbpo.errors import WorkFailed
from flowmbpo.reports.replay import film, raycast


def distance_to_segment(points, start, end):
    share = np.clip((points - start) @ (end - start) / max((end - start) @ (end - start), 1e-12), 0, 1)
    return np.linalg.norm(points - start - share[..., None] * (end - start), axis=-1)


@pytest.mark.parametrize("length", [0.0, 0.4])
def test_rays_meet_the_surface_and_nothing_before_it(length):
    rng = np.random.default_rng(1)
    start, radius = np.array([0.1, -0.2, -3.0]), 0.3
    end = start + length * np.array([0.6, 0.64, 0.48])
    rays = rng.normal(size=(400, 3)) * [0.15, 0.15, 0] + [0, 0, -1]
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    found = raycast.intersect(rays.astype(np.float32), start.astype(np.float32), end.astype(np.float32), radius)
    hits = np.isfinite(found)
    assert 50 < hits.sum() < 350
    points = rays[hits] * found[hits, None]
    np.testing.assert_allclose(distance_to_segment(points, start, end), radius, atol=2e-4)
    along = np.linspace(0, 6, 2000)
    for ray, distance in zip(rays[::8], found[::8], strict=True):
        inside = along[distance_to_segment(along[:, None] * ray, start, end) < radius]
        assert len(inside) == 0 if np.isinf(distance) else abs(inside.min(initial=np.inf) - distance) < 0.01


def test_a_capsule_behind_the_eye_is_not_seen():
    found = raycast.intersect(np.array([[0.0, 0.0, -1.0]]), np.array([0.0, 0, 2]), np.array([0.0, 0, 3]), 0.5)
    assert np.isinf(found).all()


@pytest.mark.parametrize("width", [0.01, 0.5, 1.7, 6.0])
def test_squares_are_averaged_over_the_pixel(width):
    x = np.linspace(-3, 3, 41)
    samples = x[:, None] + width * (np.arange(4000) + 0.5) / 4000 - width / 2
    expected = np.where(samples % 2 < 1, 1.0, -1.0).mean(axis=1)
    found = raycast._stripes(x.astype(np.float32), np.full(41, width, dtype=np.float32))
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=2e-3 + 1e-4 / width)
    sign = np.sign(found[np.abs(expected) > 0.1] * expected[np.abs(expected) > 0.1])
    assert len(set(sign)) <= 1  # which square is the dark one is a matter of taste


def test_the_camera_sees_what_it_looks_at_in_the_middle():
    camera = raycast.Camera(320, 180)
    ray = camera.rays(np.array([160.0]), np.array([90.0]))[0, 0]
    np.testing.assert_allclose(ray, -camera.eye / np.linalg.norm(camera.eye), atol=1e-6)
    left, top, right, bottom = camera.rectangle(-camera.eye[None], 0.25)
    assert left < 160 < right
    assert top < 90 < bottom
    assert camera.rectangle(camera.eye[None], 0.25) is None  # behind


def test_bodies_are_painted_inside_their_rectangle():
    """A ball's outline, found pixel by pixel on the whole picture, equals what is painted inside the window."""
    camera = raycast.Camera(160, 90)
    segment = np.repeat((np.array([0.4, 0.1, 0.2]) - camera.eye)[None, None], 2, axis=1)
    layer, (rows, columns) = raycast.bodies(camera, segment, np.array([0.25]), np.ones((1, 3)))
    painted = np.zeros((90, 160))
    painted[rows, columns] = layer[..., 3]
    rays = camera.rays(np.arange(160) + 0.5, np.arange(90) + 0.5)
    everywhere = np.isfinite(raycast.intersect(rays, segment[0, 0], segment[0, 1], 0.25))
    assert everywhere.sum() > 100
    assert (painted[everywhere] > 0.2).all()
    assert (painted[~everywhere] < 0.8).all()
    assert painted.sum() == pytest.approx(everywhere.sum(), rel=0.03)


def test_a_body_darkens_the_ground_below_it_and_nothing_far_away():
    painter = film.Painter(ball(), 160, 90)
    eye = painter.camera.eye + np.array([0, film.LOOK_HEIGHT, 0])
    segment = np.array([[[0.0, 0.3, 0.0], [0.0, 0.3, 0.0]]])
    lost = raycast.shadow(painter.ground, eye, segment, np.array([0.25]))
    x, z = painter.ground.x + eye[0], painter.ground.z + eye[2]
    below = np.hypot(x, z) < 0.1
    assert below.any()
    assert (lost[below] > 0.15).all()
    assert (lost[np.hypot(x, z) > 1.0] == 0).all()


def test_pictures_show_the_body_and_its_motion():
    painter = film.Painter(walk(60), 320, 180)
    first, later = (painter.paint(step).astype(float) for step in (0, 20))
    orange = (first[..., 0] > 1.5 * first[..., 2]) & (first[..., 0] > 60)
    assert orange.mean() > 1e-3
    assert np.abs(first - later).mean() > 1


def test_contact_is_shown_by_filled_dots():
    """The lowest foot is always in the ground: its dot is filled, that of a lifted foot is not."""
    episode = walk(60)
    painter = film.Painter(episode, 480, 270)
    touching = episode.clearance()[10] < 0
    assert 0 < touching.sum() < 4
    image = painter.paint(10).astype(float) / 255
    for foot, touches in enumerate(touching):
        x = 480 - (4 * 1.6 + 0.6) * 10 + 16 * foot + 5
        near = np.abs(image[256, int(x)] - painter.colors[episode.feet[foot]]).max() < 0.05
        assert near == touches


def test_the_followed_path_is_a_centred_mean():
    path = np.arange(100.0)[:, None] ** 2
    found = film.smooth(path)
    assert found[0] == path[0]
    assert found[-1] == path[-1]
    np.testing.assert_allclose(found[50], path[26:75].mean(axis=0))


@pytest.mark.parametrize(("fps", "first"), [(30, [0, 2, 4]), (20, [0, 3, 6])])
def test_films_run_in_real_time(fps, first):
    steps = film.frame_steps(walk(61), fps)  # one second and its end
    assert steps[:3].tolist() == first
    assert len(steps) == fps + 1
    assert steps[-1] == 60


def test_an_mp4_that_players_open(tmp_path):
    av = pytest.importorskip("av")
    target, told = tmp_path / "walk.mp4", []
    film.write_mp4(walk(31), target, lambda done, total: told.append((done, total)))
    with av.open(str(target)) as container:
        stream = container.streams.video[0]
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 30
    assert told == [(done, 16) for done in range(1, 17)]
    assert [picture.shape for picture in pictures] == [(540, 960, 3)] * 16
    expected = film.Painter(walk(31), 960, 540).paint(30).astype(float)
    assert np.abs(pictures[-1] - expected).mean() < 4
    assert np.abs(pictures[0] - expected).mean() > 4


def test_a_gif_that_repeats(tmp_path):
    target = tmp_path / "walk.gif"
    film.write_gif(walk(31), target)
    with Image.open(target) as picture:
        assert picture.size == (480, 270)
        assert picture.n_frames == 11
        assert picture.info["loop"] == 0
        assert picture.info["duration"] == 50
        picture.seek(10)
        last = np.asarray(picture.convert("RGB"), dtype=float)
    expected = film.Painter(walk(31), 480, 270).paint(30).astype(float)
    assert np.abs(last - expected).mean() < 6


def test_a_film_of_one_step(tmp_path):
    film.write_gif(ball(1), tmp_path / "one.gif")
    film.write_mp4(ball(1), tmp_path / "one.mp4")
    with Image.open(tmp_path / "one.gif") as picture:
        assert picture.n_frames == 1


@pytest.mark.parametrize("write", [film.write_gif, film.write_mp4])
def test_a_film_that_cannot_be_written(tmp_path, write):
    with pytest.raises(WorkFailed, match="could not write"):
        write(ball(2), tmp_path / "missing" / f"x{'.gif' if write is film.write_gif else '.mp4'}")
    assert not any(tmp_path.iterdir())
