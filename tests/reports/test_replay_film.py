"""Films and pictures without a GPU: outlines against rays, files against their decoders."""

import dataclasses

import numpy as np
import pytest
from PIL import Image, ImageDraw

from flowmbpo.errors import WorkFailed
from flowmbpo.reports.replay import film, scene
from tests.reports.walking import ball, walk


def bodies(segments, radii, colours, size=(320, 180)):
    """The capsules alone on black, (H, W, 3)."""
    image = Image.new("RGB", size)
    scene._bodies(ImageDraw.Draw(image), scene.Camera(*size), np.array(segments), np.array(radii), colours)
    return np.asarray(image).astype(float)


def test_the_camera_sees_what_it_looks_at_in_the_middle():
    pixels, depth = scene.Camera(320, 180).project(-scene.EYE)
    np.testing.assert_allclose(pixels, [160, 90], atol=1e-9)
    assert depth == pytest.approx(np.linalg.norm(scene.EYE))


@pytest.mark.parametrize("length", [0.0, 0.4])
def test_a_capsule_covers_the_pixels_whose_rays_meet_it(length):
    """Pixel by pixel: the ray from the eye comes nearer to the segment than the radius."""
    camera, radius = scene.Camera(320, 180), 0.25
    start = np.array([0.2, 0.1, 0.1]) - scene.EYE
    end = start + length * np.array([0.6, 0.64, 0.48])
    painted = bodies([[start, end]], [radius], [(200, 100, 50)]).sum(-1) > 0
    columns, rows = np.meshgrid(np.arange(320) + 0.5, np.arange(180) + 0.5)
    rays = np.stack([(columns - 160) / camera.focal, (90 - rows) / camera.focal, np.ones_like(rows)], -1) @ camera.axes
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    points = np.linspace(start, end, 100)
    gaps = np.stack([np.linalg.norm(point - (rays @ point)[..., None] * rays, axis=-1) for point in points]).min(0)
    assert painted.sum() > 300
    assert (painted != (gaps < radius)).sum() < 0.06 * painted.sum()


def test_the_nearer_capsule_hides_the_farther_one():
    direction = -scene.EYE / np.linalg.norm(scene.EYE)
    segments = [[distance * direction] * 2 for distance in (2.0, 3.0)]
    for order in (slice(None), slice(None, None, -1)):
        image = bodies(segments[order], [0.2, 0.2], [(255, 0, 0), (0, 0, 255)][order])
        red, _, blue = image[90, 160]
        assert red > 2 * blue


def test_what_is_at_the_lens_or_behind_it_is_not_painted():
    assert (
        bodies([[scene.EYE, scene.EYE + 0.3], [[0, 0, 0.1], [0, 0, -0.1]]], [0.25, 0.25], [(255, 0, 0)] * 2).sum() == 0
    )


def test_a_body_darkens_the_ground_where_the_sun_is_behind_it_and_nowhere_else():
    target, size = np.array([0.0, film.LOOK_HEIGHT, 0.0]), (320, 180)
    high = dataclasses.replace(ball(), poses=ball().poses + np.array([0, 0.3, 0, 0, 0, 0, 0], dtype=np.float32))
    gone = dataclasses.replace(ball(), poses=ball().poses + np.array([0, 0, 999, 0, 0, 0, 0], dtype=np.float32))
    with_body, without = (np.asarray(scene.paint(e, 0, target, *size)).astype(float) for e in (high, gone))
    camera, eye = scene.Camera(*size), target + scene.EYE
    shadow = np.array([0.0, 0.4, 0.0]) - scene.SUN * (0.4 / scene.SUN[1])
    far = np.array([1.0, 0.0, 0.0])
    for place, share in ((shadow, scene._SHADOW), (far, 1.0)):
        x, y = camera.project(place - eye)[0].round().astype(int)
        assert with_body[y, x].sum() == pytest.approx(share * without[y, x].sum(), rel=0.02)


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
        near = (
            np.abs(image[256, int(x)] - np.array(scene.colour_of(episode.capsule_part[episode.feet[foot]])) / 255).max()
            < 0.05
        )
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
