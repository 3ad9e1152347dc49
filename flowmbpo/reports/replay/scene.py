"""Capsules on a checkered ground as Pillow draws them: projected outlines, farthest first, at twice the resolution.

A capsule in perspective is two discs and what joins them; its roundness is a few narrower outlines, shifted towards the
light and lighter each time. Not here: what is written over the picture, and which steps are shown (`film`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from flowmbpo.runs.episode import Episode

Colour = tuple[int, ...]  # RGB in 0..255

FIELD_OF_VIEW = math.radians(38.0)  # vertical
EYE = np.array([-1.5, 1.55, 3.3])  # m, camera relative to what it looks at; the run goes along +x, to the right
SUN = np.array([0.26, 0.88, 0.39]) / np.linalg.norm([0.26, 0.88, 0.39])  # direction to the light
FOG = (9.0, 34.0)  # m: where the ground begins to fade, and where it is gone
SUPERSAMPLING = 2
MARK_EVERY = 5  # m
SKY, SQUARES, MARK = (223, 231, 241), ((212, 219, 230), (194, 204, 219)), (107, 120, 143)
TORSO, LIMB = (247, 242, 235), (87, 99, 122)
LEGS = ((31, 120, 230), (232, 133, 41), (18, 161, 125), (194, 79, 196))
_SHADES = 12  # outlines of one capsule
_SHADOW = 0.55  # what is left of the ground's light


def colour_of(part: str) -> Colour:
    """Colour of a capsule by its name: feet carry the colour of their leg."""
    kind, _, number = part.partition(" ")
    if kind == "foot":
        return LEGS[(int(number) - 1) % len(LEGS)]
    return LIMB if number else TORSO


class Camera:
    """A camera that keeps its distance and direction to what it follows."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        forward = -EYE / np.linalg.norm(EYE)
        right = np.cross(forward, [0.0, 1.0, 0.0])
        right /= np.linalg.norm(right)
        self.axes = np.stack([right, np.cross(right, forward), forward])  # rows: right, up, forward
        self.focal = 0.5 * height / math.tan(0.5 * FIELD_OF_VIEW)  # pixels

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (..., 2) and depth in m (...) of points (..., 3) relative to the eye; depth is at least 5 cm."""
        x, y, depth = np.moveaxis(points @ self.axes.T, -1, 0)
        depth = np.maximum(depth, 0.05)
        return np.stack([self.width / 2 + self.focal * x / depth, self.height / 2 - self.focal * y / depth], -1), depth


def paint(episode: Episode, step: int, target: np.ndarray, width: int, height: int) -> Image.Image:
    """The picture of one control step, seen by a camera that looks at `target` (3,), m."""
    camera = Camera(width * SUPERSAMPLING, height * SUPERSAMPLING)
    eye = target + EYE
    segments, radii = episode.segments()[step].astype(np.float64), episode.capsule_radius.astype(np.float64)
    image = Image.new("RGB", (camera.width, camera.height), SKY)
    _ground(ImageDraw.Draw(image), camera, eye, target[2])
    mask = Image.new("L", image.size, 255)
    _shadows(ImageDraw.Draw(mask), camera, eye, segments, radii)
    soft = mask.filter(ImageFilter.GaussianBlur(camera.height / 180))
    image = Image.composite(image, image.point(lambda value: int(_SHADOW * value)), soft)
    _bodies(ImageDraw.Draw(image), camera, segments - eye, radii, [colour_of(part) for part in episode.capsule_part])
    return image.resize((width, height), Image.Resampling.BOX)


def _ground(pen: ImageDraw.ImageDraw, camera: Camera, eye: np.ndarray, path_z: float) -> None:
    """Squares of 1 m, a line across the path every 5 m, both fading into the sky."""
    x = np.arange(math.floor(eye[0] - FOG[1]), math.ceil(eye[0] + FOG[1]) + 1)
    z = np.arange(math.floor(eye[2] - FOG[1]), math.ceil(eye[2]) + 1)
    corners = np.stack(np.broadcast_arrays(x[:, None], 0.0, z[None, :]), -1) - eye
    pixels, depth = camera.project(corners)
    near = (pixels > -camera.width).all(-1) & (pixels < 2 * camera.width).all(-1) & (depth > 0.1)
    fog = np.clip((np.linalg.norm(corners, axis=-1) - FOG[0]) / (FOG[1] - FOG[0]), 0.0, 1.0)
    for i, j in zip(*np.nonzero(near[:-1, :-1] & near[1:, :-1] & near[:-1, 1:] & near[1:, 1:]), strict=True):
        square = [pixels[i, j], pixels[i + 1, j], pixels[i + 1, j + 1], pixels[i, j + 1]]
        _polygon(pen, square, _mixed(SQUARES[int(x[i] + z[j]) % 2], SKY, fog[i, j]))
    for metres in range(MARK_EVERY * math.floor((eye[0] - 4) / MARK_EVERY), int(eye[0] + 16), MARK_EVERY):
        line = [(-0.03, -2.5), (0.03, -2.5), (0.03, 2.5), (-0.03, 2.5), (0.15, 1.3)]  # and where the label begins
        pixels, depth = camera.project(np.insert(np.array([metres, path_z]) + line, 1, 0.0, axis=1) - eye)
        if depth.min() > 0.1:
            _polygon(pen, pixels[:4], MARK)
            size = 0.25 * camera.focal / depth[4]
            pen.text(tuple(pixels[4]), f"{metres} m", MARK, font_size=size, anchor="ls")


def _shadows(
    pen: ImageDraw.ImageDraw, camera: Camera, eye: np.ndarray, segments: np.ndarray, radii: np.ndarray
) -> None:
    """Where the sun does not reach the ground: what each capsule covers, seen along its rays."""
    angle = np.linspace(0.0, 2 * np.pi, 24, endpoint=False)
    round_ = np.stack([np.cos(angle), 0 * angle, np.sin(angle)], -1)
    for ends, radius in zip(segments - SUN * (segments[..., 1:2] / SUN[1]), radii, strict=True):
        steps = np.linspace(ends[0], ends[1], 2 + int(np.linalg.norm(ends[1] - ends[0]) / (0.3 * radius)))
        for centre in steps:
            pixels, depth = camera.project(centre + radius * round_ - eye)
            if depth.min() > 0.1:
                _polygon(pen, pixels, 0)


def _bodies(
    pen: ImageDraw.ImageDraw, camera: Camera, segments: np.ndarray, radii: np.ndarray, colours: Sequence[Colour]
) -> None:
    """The capsules, farthest first; `segments` (C, 2, 3) are relative to the eye."""
    light = camera.axes @ SUN
    pixels, depth = camera.project(segments)
    for capsule in np.argsort(radii - depth.min(axis=1)):  # by the nearest point
        if depth[capsule].min() < 2 * radii[capsule]:
            continue  # at or behind the lens
        width = camera.focal * radii[capsule] / depth[capsule]  # pixels, at both ends
        for share in np.linspace(0.0, 1.0, _SHADES):
            shift = 0.75 * share * width[:, None] * np.array([light[0], -light[1]])
            shade = _mixed((0, 0, 0), colours[capsule], 0.55 + 0.45 * min(1.0, 1.4 * share))
            _outline(
                pen, pixels[capsule] + shift, width * (1 - share) ** 0.6, _mixed(shade, (255,) * 3, 0.3 * share**3)
            )


def _outline(pen: ImageDraw.ImageDraw, ends: np.ndarray, width: np.ndarray, colour: Colour) -> None:
    """Two discs and the band between them."""
    along = ends[1] - ends[0]
    length = float(np.hypot(*along))
    if length > 1e-6:
        side = np.array([-along[1], along[0]]) / length
        corners = [ends[0] + width[0] * side, ends[1] + width[1] * side, ends[1] - width[1] * side]
        _polygon(pen, [*corners, ends[0] - width[0] * side], colour)
    for centre, radius in zip(ends, width, strict=True):
        pen.ellipse((*(centre - radius), *(centre + radius)), fill=colour)


def _polygon(pen: ImageDraw.ImageDraw, corners: Sequence[np.ndarray] | np.ndarray, colour: Colour | int) -> None:
    pen.polygon([(float(x), float(y)) for x, y in corners], fill=colour)


def _mixed(a: Sequence[float], b: Sequence[float], share: float) -> Colour:
    return tuple(round(x + float(share) * (y - x)) for x, y in zip(a, b, strict=True))
