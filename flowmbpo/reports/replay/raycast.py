"""Pictures of capsules on a checkered ground, computed in NumPy: every pixel meets the exact shapes, no GPU, no meshes.

A capsule seen along a ray is a quadratic equation, so thirteen of them need no renderer: shapes are solved inside their
bounding rectangles only, at twice the resolution; the ground is filtered analytically. Text is `overlay`'s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

FIELD_OF_VIEW = math.radians(38.0)  # vertical
EYE = np.array([-1.5, 1.55, 3.3])  # camera relative to what it looks at; the run goes along +x, to the right
SUN = np.array([0.26, 0.88, 0.39]) / np.linalg.norm([0.26, 0.88, 0.39])  # direction to the light
FOG = (9.0, 34.0)  # m: where the ground begins to fade, and where it is gone
SUPERSAMPLING = 2
MARK_EVERY = 5.0  # m


@dataclass(frozen=True)
class Palette:
    """Linear-looking RGB in 0..1, close to the page's light theme."""

    sky: tuple[float, float, float] = (0.875, 0.906, 0.945)
    squares: tuple[tuple[float, float, float], tuple[float, float, float]] = ((0.83, 0.86, 0.90), (0.76, 0.80, 0.86))
    mark: tuple[float, float, float] = (0.42, 0.47, 0.56)
    torso: tuple[float, float, float] = (0.97, 0.95, 0.92)
    limb: tuple[float, float, float] = (0.34, 0.39, 0.48)
    legs: tuple[tuple[float, float, float], ...] = (
        (0.12, 0.47, 0.90),
        (0.91, 0.52, 0.16),
        (0.07, 0.63, 0.49),
        (0.76, 0.31, 0.77),
    )

    def of(self, part: str) -> tuple[float, float, float]:
        """Colour of a capsule by its name: feet carry the colour of their leg."""
        kind, _, number = part.partition(" ")
        if kind == "foot":
            return self.legs[(int(number) - 1) % len(self.legs)]
        return self.limb if number else self.torso


class Camera:
    """A camera that keeps its distance and direction to a moving target, so that all its rays are computed once."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        scale = 1.5 if width < height else 1.0
        self.eye = EYE * scale
        forward = -self.eye / np.linalg.norm(self.eye)
        right = np.cross(forward, [0.0, 1.0, 0.0])
        right /= np.linalg.norm(right)
        self.axes = np.stack([right, np.cross(right, forward), forward])  # rows: right, up, forward
        self.focal = 0.5 * height / math.tan(0.5 * FIELD_OF_VIEW)  # pixels

    def rays(self, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Unit directions (rows, columns, 3) through pixel coordinates, which need not be whole."""
        x = (columns - 0.5 * self.width) / self.focal
        y = (0.5 * self.height - rows) / self.focal
        grid = np.stack(np.broadcast_arrays(x[None, :], y[:, None], np.float32(1.0)), axis=-1).astype(np.float32)
        grid /= _length(grid)[..., None]
        return grid @ self.axes.astype(np.float32)

    def rectangle(self, points: np.ndarray, radius: float) -> tuple[float, float, float, float] | None:
        """Pixel bounds (left, top, right, bottom) around balls at camera-relative points (N, 3); None if none shows."""
        x, y, depth = (points @ self.axes.T).T
        if (depth <= 2 * radius + 1e-3).any():
            return None  # at or behind the lens
        centre_x, centre_y = 0.5 * self.width + self.focal * x / depth, 0.5 * self.height - self.focal * y / depth
        margin = 1.1 * self.focal * radius / (depth - radius) + 1.0
        left, right = (centre_x - margin).min(), (centre_x + margin).max()
        top, bottom = (centre_y - margin).min(), (centre_y + margin).max()
        if right <= 0 or bottom <= 0 or left >= self.width or top >= self.height:
            return None
        return max(left, 0.0), max(top, 0.0), min(right, float(self.width)), min(bottom, float(self.height))


class Ground:
    """The plane y = 0: squares of 1 m, a line every 5 m of x, fading into the sky."""

    def __init__(self, camera: Camera, eye_height: float, palette: Palette) -> None:
        self.camera, self.palette = camera, palette
        rays = camera.rays(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
        self.hit = rays[..., 1] < -1e-3
        distance = np.where(self.hit, -eye_height / np.minimum(rays[..., 1], -1e-3), np.float32(1e4))
        self.x, self.z = distance * rays[..., 0], distance * rays[..., 2]
        # A pixel covers this much of the ground along x and z: the filter width that keeps far squares from flickering.
        self.width_x = np.maximum(np.abs(np.gradient(self.x, axis=1)), np.abs(np.gradient(self.x, axis=0)))
        self.width_z = np.maximum(np.abs(np.gradient(self.z, axis=1)), np.abs(np.gradient(self.z, axis=0)))
        fog = np.clip((distance - FOG[0]) / (FOG[1] - FOG[0]), 0.0, 1.0)
        self.fog = np.where(self.hit, fog, 1.0).astype(np.float32)[..., None]

    def colors(self, eye: np.ndarray, path_z: float, labels: Mapping[int, np.ndarray]) -> np.ndarray:
        """Unlit colours (H, W, 3) seen from `eye`; marks lie around z = path_z. `labels`: metres -> coverage image."""
        x, z = self.x + np.float32(eye[0]), self.z + np.float32(eye[2])
        blend = 0.5 - 0.5 * _stripes(x, self.width_x) * _stripes(z, self.width_z)
        first, second = (np.array(color, dtype=np.float32) for color in self.palette.squares)
        image = first + blend[..., None] * (second - first)
        for metres, label in labels.items():
            self._mark(image, eye, np.array([metres, 0.0, path_z]), label)
        return image

    def _mark(self, image: np.ndarray, eye: np.ndarray, place: np.ndarray, label: np.ndarray) -> None:
        """Paint a line across the path at `place`, and `label` (h, w) beside its near end."""
        for corner, size, coverage in (
            (np.array([-0.03, 0.0, -2.5]), np.array([0.06, 0.0, 5.0]), None),
            (np.array([0.07, 0.0, 0.78]), np.array([1.1, 0.0, 0.55]), label),
        ):
            low = place + corner - eye
            window = self.window(low, low + size, 0.02)
            if window is None:
                continue
            u, v = (self.x[window] - low[0]) / size[0], (self.z[window] - low[2]) / size[2]
            inside = (u >= 0) & (u < 1) & (v >= 0) & (v < 1)
            if coverage is None:
                soft = np.clip((0.5 - np.abs(u - 0.5)) * size[0] / self.width_x[window] + 0.5, 0.0, 1.0)
                cover = soft * ((v >= 0) & (v < 1)) * np.minimum(1.0, size[0] / self.width_x[window])
            else:
                cover = np.zeros(u.shape)
                rows, columns = (v[inside] * coverage.shape[0]), (u[inside] * coverage.shape[1])
                cover[inside] = coverage[rows.astype(np.intp), columns.astype(np.intp)]
            color = np.array(self.palette.mark, dtype=np.float32)
            image[window] += (0.8 * cover * self.hit[window])[..., None].astype(np.float32) * (color - image[window])

    def window(self, low: np.ndarray, high: np.ndarray, margin: float) -> tuple[slice, slice] | None:
        """Rows and columns that a rectangle of the ground (relative to the eye) may cover; None if out of view."""
        corners = np.array([[x, low[1], z] for x in (low[0], high[0]) for z in (low[2], high[2])])
        box = self.camera.rectangle(corners, margin)
        if box is None:
            return None
        left, top, right, bottom = box
        return slice(math.floor(top), math.ceil(bottom)), slice(math.floor(left), math.ceil(right))


def _stripes(x: np.ndarray, width: np.ndarray) -> np.ndarray:
    """A square wave of period 2 between -1 and 1, averaged over `width` around x: the triangle wave is its integral."""

    def integral(position: np.ndarray) -> np.ndarray:
        half = np.float32(0.5) * position
        return np.abs(half - np.floor(half) - np.float32(0.5))

    near = np.maximum(width, np.float32(1e-4))
    reach = np.float32(0.5) * near
    return np.asarray((integral(x - reach) - integral(x + reach)) * np.float32(2.0) / near)


def shadow(ground: Ground, eye: np.ndarray, segments: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """How much light each ground pixel loses, (H, W) in 0..1: sun with a soft edge, and darkness right under bodies."""
    lost = np.zeros(ground.x.shape, dtype=np.float32)
    height = segments[..., 1].min(axis=1)
    closeness = 0.22 * np.clip(1.2 - height / 0.5, 0.0, 1.0)
    for light, edge, strengths in (
        (SUN, 0.05, np.full(len(radii), 0.42)),
        (np.array([0.0, 1.0, 0.0]), 0.10, closeness),
    ):
        # Where the light carries a segment: its shadow is what lies near that line, measured across the light.
        carried = segments - light * (segments[..., 1:2] / light[1]) - eye  # (C, 2, 3), on the ground
        across = (np.eye(3) - np.outer(light, light))[[0, 2]].astype(np.float32)  # ground directions, seen along it
        for (start, end), radius, strength in zip(carried, radii, strengths, strict=True):
            reach = np.array([1.0, 0.0, 1.0]) * (radius + edge) / light[1]
            window = ground.window(np.minimum(start, end) - reach, np.maximum(start, end) + reach, 0.0)
            if window is None or strength <= 0:
                continue
            point = np.stack([ground.x[window] - start[0], ground.z[window] - start[2]], axis=-1).astype(np.float32)
            gap = _distance(point @ across, (end - start)[[0, 2]].astype(np.float32) @ across)
            amount = np.clip((radius + edge - gap) / (2 * edge), 0.0, 1.0)
            amount = strength * amount * amount * (3 - 2 * amount) * ground.hit[window]
            np.maximum(lost[window], amount, out=lost[window], casting="same_kind")
    return lost


def _length(vectors: np.ndarray) -> np.ndarray:
    """Lengths (...) of (..., 3); several times faster than numpy.linalg.norm along a short axis."""
    return np.asarray(np.sqrt(np.einsum("...i,...i->...", vectors, vectors)))


def _distance(point: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Distance (...) of points (..., 3) to the segment from the origin to `along` (3,)."""
    share = np.clip(point @ along / max(float(along @ along), 1e-12), 0.0, 1.0)
    return _length(point - share[..., None] * along)


def bodies(
    camera: Camera, segments: np.ndarray, radii: np.ndarray, colors: np.ndarray
) -> tuple[np.ndarray, tuple[slice, slice]] | None:
    """The capsules (camera-relative) as premultiplied RGBA (h, w, 4) and where it belongs; None when none shows."""
    boxes = [camera.rectangle(ends, float(radius)) for ends, radius in zip(segments, radii, strict=True)]
    shown = [box for box in boxes if box]
    if not shown:
        return None
    left, top = (math.floor(min(box[side] for box in shown)) for side in (0, 1))
    right, bottom = (math.ceil(max(box[side] for box in shown)) for side in (2, 3))
    s = SUPERSAMPLING
    columns = left + (np.arange((right - left) * s) + 0.5) / s
    rows = top + (np.arange((bottom - top) * s) + 0.5) / s
    rays = camera.rays(columns, rows)
    depth = np.full(rays.shape[:2], np.inf, dtype=np.float32)
    image = np.zeros((*rays.shape[:2], 4), dtype=np.float32)
    for box, (start, end), radius, color in zip(boxes, segments, radii, colors, strict=True):
        if box is None:
            continue
        window = (
            slice(int((box[1] - top) * s), math.ceil((box[3] - top) * s)),
            slice(int((box[0] - left) * s), math.ceil((box[2] - left) * s)),
        )
        found = intersect(rays[window], start.astype(np.float32), end.astype(np.float32), float(radius))
        nearer = found < depth[window] - 1e-4  # joints are two equal balls in one place: the first keeps it
        hit = rays[window][nearer]
        point = hit * found[nearer][:, None]
        depth[window][nearer] = found[nearer]
        image[window][nearer, :3] = shade(point, hit, start, end, color)
        image[window][nearer, 3] = 1.0
    height, width = bottom - top, right - left
    small = sum(image[i::s, j::s] for i in range(s) for j in range(s)) / np.float32(s * s)
    assert small.shape == (height, width, 4)
    return small, (slice(top, bottom), slice(left, right))


def intersect(rays: np.ndarray, start: np.ndarray, end: np.ndarray, radius: float) -> np.ndarray:
    """Distance along unit `rays` (..., 3) from the origin to the capsule; infinite where it is missed."""
    along = end - start
    length2 = float(along @ along)
    best = np.full(rays.shape[:-1], np.inf, dtype=np.float32)
    if length2 > 1e-12:  # the cylinder between the ends
        ray_along, origin_along = rays @ along, -float(start @ along)
        a = length2 - ray_along**2
        b = length2 * -(rays @ start) - origin_along * ray_along
        c = length2 * (float(start @ start) - radius**2) - origin_along**2
        inside = b * b - a * c
        distance = (-b - np.sqrt(np.maximum(inside, 0.0))) / np.maximum(a, 1e-9)
        height = origin_along + distance * ray_along
        best = np.where((inside > 0) & (height > 0) & (height < length2) & (distance > 0), distance, best)
    for centre in (start, end):
        b = -(rays @ centre)
        inside = b * b - (float(centre @ centre) - radius**2)
        distance = -b - np.sqrt(np.maximum(inside, 0.0))
        best = np.where((inside > 0) & (distance > 0) & (distance < best), distance, best)
    return np.asarray(best, dtype=np.float32)


def shade(point: np.ndarray, ray: np.ndarray, start: np.ndarray, end: np.ndarray, color: np.ndarray) -> np.ndarray:
    """Colours (N, 3) of surface points: sky and ground light by the normal's height, the sun, a soft highlight."""
    along = end - start
    start, along, color = (vector.astype(np.float32) for vector in (start, along, color))
    share = np.clip((point - start) @ along / max(float(along @ along), 1e-12), 0.0, 1.0)
    normal = point - start - share[:, None] * along
    normal /= _length(normal)[..., None]
    ambient = 0.48 + 0.16 * normal[:, 1]
    diffuse = 0.52 * np.maximum(normal @ SUN.astype(np.float32), 0.0)
    half = SUN.astype(np.float32) - ray
    half /= _length(half)[..., None]
    highlight = 0.16 * np.maximum((normal * half).sum(-1), 0.0) ** 40
    return np.asarray((ambient + diffuse)[:, None] * color + highlight[:, None], dtype=np.float32)
