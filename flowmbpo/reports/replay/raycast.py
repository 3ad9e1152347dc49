"""Pictures of capsules on a checkered ground, computed in NumPy: every pixel meets the exact shapes, no GPU, no meshes.

A capsule seen along a ray is a quadratic equation, so thirteen of them need no renderer: shapes are solved inside their
bounding rectangles only, at twice the resolution; the ground is filtered analytically. Text is `overlay`'s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

FIELD_OF_VIEW = math.radians(38.0)  # vertical
EYE = np.array([-1.5, 1.55, 3.3])  # camera relative to what it looks at; the run goes along +x, to the right
SUN = np.array([0.26, 0.88, 0.39])  # direction to the light, about unit length
FOG = (9.0, 34.0)  # m: where the ground begins to fade, and where it is gone
SUPERSAMPLING = 2
MARK_EVERY = 5.0  # m
_SHADOW_EDGE = 0.05  # m, half-width of the penumbra


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
        grid /= np.linalg.norm(grid, axis=-1, keepdims=True)
        return grid @ self.axes.astype(np.float32)

    def rectangle(self, points: np.ndarray, radius: float) -> tuple[float, float, float, float] | None:
        """Pixel bounds (left, top, right, bottom) around balls at camera-relative points (N, 3); None if none shows."""
        x, y, depth = (points @ self.axes.T).T
        if (depth <= 2 * radius).any():
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
        self.palette = palette
        rays = camera.rays(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
        self.hit = rays[..., 1] < -1e-3
        distance = np.where(self.hit, -eye_height / np.minimum(rays[..., 1], -1e-3), np.float32(1e4))
        self.x, self.z = distance * rays[..., 0], distance * rays[..., 2]
        # A pixel covers this much of the ground along x and z: the filter width that keeps far squares from flickering.
        self.width_x = np.maximum(np.abs(np.gradient(self.x, axis=1)), np.abs(np.gradient(self.x, axis=0)))
        self.width_z = np.maximum(np.abs(np.gradient(self.z, axis=1)), np.abs(np.gradient(self.z, axis=0)))
        fog = np.clip((distance - FOG[0]) / (FOG[1] - FOG[0]), 0.0, 1.0)
        self.fog = np.where(self.hit, fog, 1.0).astype(np.float32)[..., None]

    def colors(self, eye: np.ndarray, path_z: float, labels: dict[int, np.ndarray]) -> np.ndarray:
        """Unlit colours (H, W, 3) seen from `eye`; marks lie around z = path_z. `labels`: metres -> coverage image."""
        x, z = self.x + np.float32(eye[0]), self.z + np.float32(eye[2])
        blend = 0.5 - 0.5 * _stripes(x, self.width_x) * _stripes(z, self.width_z)
        first, second = (np.array(color, dtype=np.float32) for color in self.palette.squares)
        image = first + blend[..., None] * (second - first)
        offset = (x + 0.5 * MARK_EVERY) % MARK_EVERY - 0.5 * MARK_EVERY
        line = np.clip((0.022 - np.abs(offset)) / self.width_x + 0.5, 0.0, 1.0) * (np.abs(z - path_z) < 2.5)
        cover = 0.75 * line * np.minimum(1.0, 0.045 / self.width_x)
        for metres, label in labels.items():
            _stamp(cover, label, (x - metres - 0.07) / 1.1, (z - path_z - 1.27) / 0.55)
        image += cover[..., None] * (np.array(self.palette.mark, dtype=np.float32) - image)
        return image


def _stripes(x: np.ndarray, width: np.ndarray) -> np.ndarray:
    """A square wave of period 2 between -1 and 1, averaged over `width` around x: the triangle wave is its integral."""
    half = 0.5 * np.maximum(width, 1e-4)

    def integral(position: np.ndarray) -> np.ndarray:
        return np.abs((position % 2.0) - 1.0)

    return np.asarray((integral(x - half) - integral(x + half)) / (2 * half), dtype=np.float32)


def _stamp(cover: np.ndarray, label: np.ndarray, u: np.ndarray, v: np.ndarray) -> None:
    """Paint `label` (h, w) where u and v lie in 0..1."""
    inside = (u >= 0) & (u < 1) & (v >= 0) & (v < 1)
    if inside.any():
        row = (v[inside] * label.shape[0]).astype(np.intp)
        column = (u[inside] * label.shape[1]).astype(np.intp)
        cover[inside] = np.maximum(cover[inside], 0.9 * label[row, column])


def shadow(ground: Ground, eye: np.ndarray, segments: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """How much light each ground pixel loses, (H, W) in 0..1: sun with a soft edge, and darkness right under bodies."""
    lost = np.zeros(ground.x.shape, dtype=np.float32)
    down = np.array([0.0, 1.0, 0.0])
    for light, edge, strength in ((SUN / np.linalg.norm(SUN), _SHADOW_EDGE, 0.42), (down, 0.10, 0.22)):
        # Where the light carries the segment: its shadow is what lies near that line, measured across the light.
        feet = segments - light * (segments[..., 1:2] / light[1])  # (C, 2, 3), on the ground
        for (start, end), radius, heights in zip(feet, radii, segments[..., 1], strict=True):
            fade = strength if light is not down else strength * float(np.clip(1.2 - heights.min() / 0.5, 0.0, 1.0))
            reach = (radius + edge) / light[1]
            low, high = np.minimum(start, end) - reach, np.maximum(start, end) + reach
            x, z = ground.x + eye[0], ground.z + eye[2]
            rows, columns = np.nonzero((x > low[0]) & (x < high[0]) & (z > low[2]) & (z < high[2]) & ground.hit)
            if not len(rows) or fade <= 0:
                continue
            point = np.stack([x[rows, columns], np.zeros(len(rows)), z[rows, columns]], axis=-1)
            across = np.eye(3) - np.outer(light, light)
            gap = _distance((point - start) @ across, (end - start) @ across)
            amount = np.clip((radius + edge - gap) / (2 * edge), 0.0, 1.0)
            amount = fade * amount * amount * (3 - 2 * amount)
            lost[rows, columns] = np.maximum(lost[rows, columns], amount)
    return lost


def _distance(point: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Distance (N,) of points (N, 3) to the segment from the origin to `along` (3,)."""
    share = np.clip(point @ along / max(float(along @ along), 1e-12), 0.0, 1.0)
    return np.asarray(np.linalg.norm(point - share[:, None] * along, axis=-1))


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
        nearer = found < depth[window]
        hit = rays[window][nearer]
        point = hit * found[nearer][:, None]
        depth[window][nearer] = found[nearer]
        image[window][nearer, :3] = shade(point, hit, start, end, color)
        image[window][nearer, 3] = 1.0
    height, width = bottom - top, right - left
    small = image.reshape(height, s, width, s, 4).mean(axis=(1, 3))
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
    share = np.clip((point - start) @ along / max(float(along @ along), 1e-12), 0.0, 1.0)
    normal = point - start - share[:, None] * along
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    sun = SUN / np.linalg.norm(SUN)
    ambient = 0.48 + 0.16 * normal[:, 1]
    diffuse = 0.52 * np.maximum(normal @ sun, 0.0)
    half = sun - ray
    half /= np.linalg.norm(half, axis=-1, keepdims=True)
    highlight = 0.16 * np.maximum((normal * half).sum(-1), 0.0) ** 40
    return np.asarray((ambient + diffuse)[:, None] * color + highlight[:, None], dtype=np.float32)
