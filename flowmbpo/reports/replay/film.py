"""Episode -> GIF or MP4: which steps become frames, what is written over them, and the encoders.

MP4 is H.264 through PyAV, whose wheel carries the FFmpeg libraries (a third of the size of packages that ship the
program, and frames are handed over in memory); GIF is Pillow's. Where pixels come from is `scene`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from flowmbpo.reports.replay import scene
from flowmbpo.runs.episode import Episode
from flowmbpo.runs.files import output_file

MP4_SIZE, MP4_FPS = (960, 540), 30
GIF_SIZE, GIF_FPS = (480, 270), 20  # the time unit of GIF is 10 ms: 20 is exact, 30 is not
LOOK_HEIGHT = 0.42
_SMOOTHING = 24  # control steps on either side over which the followed path is averaged, as in the page
_INK, _DIM = (26, 34, 48), (92, 103, 122)

FrameCount = Callable[[int, int], None]  # (frames done, frames in all)


def write_mp4(episode: Episode, path: Path, progress: FrameCount = lambda done, total: None) -> None:
    """Write a film that browsers play (H.264, yuv420p). Raises WorkFailed when the file cannot be written."""
    import av

    with output_file(path) as temporary, av.open(str(temporary), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=MP4_FPS, options={"crf": "20", "preset": "medium"})
        stream.width, stream.height = MP4_SIZE
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, MP4_FPS)
        for image in frames(episode, MP4_SIZE, MP4_FPS, progress):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def write_gif(episode: Episode, path: Path, progress: FrameCount = lambda done, total: None) -> None:
    """Write an endlessly repeating GIF. Raises WorkFailed when the file cannot be written."""
    pictures = (Image.fromarray(image) for image in frames(episode, GIF_SIZE, GIF_FPS, progress))
    first = next(pictures)
    # One palette for all frames, without dithering: still pixels stay the same, which is what GIF compresses.
    palette = first.quantize(128, method=Image.Quantize.MEDIANCUT)
    rest = (picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures)
    with output_file(path) as temporary:
        palette.save(temporary, save_all=True, append_images=rest, duration=1000 // GIF_FPS, loop=0, disposal=1)


def frame_steps(episode: Episode, fps: int) -> np.ndarray:
    """The control steps shown in real time at `fps`, (frames,)."""
    count = max(1, int(np.floor((episode.steps - 1) * episode.dt * fps + 1e-6)) + 1)
    return np.minimum(np.rint(np.arange(count) / (fps * episode.dt)).astype(np.intp), episode.steps - 1)


def frames(episode: Episode, size: tuple[int, int], fps: int, progress: FrameCount) -> Iterator[np.ndarray]:
    """RGB pictures (H, W, 3) uint8, in real time."""
    painter = Painter(episode, *size)
    steps = frame_steps(episode, fps)
    for count, step in enumerate(steps, start=1):
        yield painter.paint(int(step))
        progress(count, len(steps))


class Painter:
    """Paints single steps of one episode."""

    def __init__(self, episode: Episode, width: int, height: int) -> None:
        self.episode, self.size = episode, (width, height)
        self.clearance = episode.clearance()
        self.cumulative = episode.cumulative_reward
        self.path = smooth(episode.poses[:, 0, [0, 2]].astype(np.float64))

    def paint(self, step: int) -> np.ndarray:
        """Picture (H, W, 3) uint8 of control step `step`."""
        x, z = self.path[step]
        picture = scene.paint(self.episode, step, np.array([x, LOOK_HEIGHT, z]), *self.size)
        self._write(picture, step)
        return np.asarray(picture)

    def _write(self, picture: Image.Image, step: int) -> None:
        """The figures of the step over the picture, sized by its height."""
        episode, pen, unit = self.episode, ImageDraw.Draw(picture), picture.height / 27
        small, middle, large = font(0.8 * unit), font(1.05 * unit), font(2.1 * unit)
        pen.text((unit, 0.8 * unit), episode.title, _INK, middle)
        details = " · ".join(f"{name} {value}" for name, value in episode.details)
        pen.text((unit, 2.2 * unit), details, _DIM, small)
        bottom = picture.height - 0.9 * unit
        pen.text((unit, bottom - 2.1 * unit), "R so far", _DIM, small, anchor="ls")
        pen.text((unit, bottom), f"{self.cumulative[step]:,.0f}", _INK, large, anchor="ls")
        figures = [("time", f"{step * episode.dt:.1f} s")]
        if np.isfinite(episode.speed[step]):
            figures.insert(0, ("speed", f"{episode.speed[step]:.1f} m/s"))
        for column, (name, value) in enumerate(figures):
            left = (8 + 5.5 * column) * unit
            pen.text((left, bottom - 1.5 * unit), name, _DIM, small, anchor="ls")
            pen.text((left, bottom), value, _INK, middle, anchor="ls")
        self._write_contacts(pen, step, picture.width, bottom, unit, small)

    def _write_contacts(
        self, pen: ImageDraw.ImageDraw, step: int, width: int, bottom: float, unit: float, small: ImageFont.FreeTypeFont
    ) -> None:
        """A dot for each foot, filled while it touches the ground."""
        feet = self.episode.feet
        if not feet:
            return
        left = width - (len(feet) * 1.6 + 0.6) * unit
        pen.text((left, bottom - 1.5 * unit), "contact", _DIM, small, anchor="ls")
        for number, capsule in enumerate(feet):
            color = scene.colour_of(self.episode.capsule_part[capsule])
            x = left + 1.6 * unit * number
            pen.ellipse(
                (x, bottom - unit, x + unit, bottom),
                fill=color if self.clearance[step, number] < 0 else None,
                outline=color,
                width=max(1, round(unit / 9)),
            )


def smooth(path: np.ndarray) -> np.ndarray:
    """Centred moving average of (T, K) over as many steps as there are on both sides, at most 2 * 24 + 1."""
    steps = np.arange(len(path))
    reach = np.minimum(np.minimum(_SMOOTHING, steps), len(path) - 1 - steps)
    sums = np.concatenate([np.zeros((1, path.shape[1])), np.cumsum(path, axis=0)])
    return np.asarray((sums[steps + reach + 1] - sums[steps - reach]) / (2 * reach + 1)[:, None])


@lru_cache
def font(size: float) -> ImageFont.FreeTypeFont:
    """Pillow's own typeface: no font file to find on the machine."""
    found = ImageFont.load_default(max(8.0, size))
    assert isinstance(found, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return found
