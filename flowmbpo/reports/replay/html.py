"""Episode -> one self-contained HTML page that plays it in 3D. The page's own sources are in `page/`."""

from __future__ import annotations

import base64
import html
import json
from pathlib import Path

import numpy as np
from jinja2 import Template

from flowmbpo.runs.episode import Episode
from flowmbpo.runs.files import output_file

THREE_VERSION = "r187"
_PAGE = Path(__file__).parent / "page"
_SCRIPTS = ("decode.js", "stage.js", "timeline.js", "player.js")  # order matters: one scope


def write_replay_html(episode: Episode, path: Path) -> None:
    """Write the page to `path`: it fetches nothing, and works from disk and in a sandboxed frame.

    Raises WorkFailed when the file cannot be written.
    """
    with output_file(path) as temporary:
        temporary.write_text(replay_html(episode), encoding="utf-8")


def replay_html(episode: Episode) -> str:
    parts = {
        "title": html.escape(episode.title),
        "three_version": THREE_VERSION,
        "three_licence": _read("three.LICENSE.txt"),
        "style": _read("page.css"),
        "three": _read("three.bundle.min.js"),
        "script": "".join(_read(name) for name in _SCRIPTS),
        "recording": script_json(document(episode)),
    }
    return Template(_read("page.html"), keep_trailing_newline=True).render(parts)


def script_json(value: object) -> str:
    """JSON that may stand inside a script element, whatever its strings contain."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def document(episode: Episode) -> dict[str, object]:
    """What `page/decode.js` reads."""
    return {
        "title": episode.title,
        "details": [list(pair) for pair in episode.details],
        "dt": episode.dt,
        "steps": episode.steps,
        "links": episode.poses.shape[1],
        "capsules": [
            {
                "link": int(link),
                "start": ends[0].tolist(),
                "end": ends[1].tolist(),
                "radius": float(radius),
                "part": part,
            }
            for link, ends, radius, part in zip(
                episode.capsule_link,
                episode.capsule_ends,
                episode.capsule_radius,
                episode.capsule_part,
                strict=True,
            )
        ],
        "feet": list(episode.feet),
        "poses": quantised(episode.poses.reshape(episode.steps, -1)),
        "reward": packed(episode.reward, "<f4"),
        "cumulative": packed(episode.cumulative_reward, "<f4"),
        "speed": packed(episode.speed, "<f4"),
        "clearance": packed(episode.clearance(), "<f4"),
    }


def quantised(values: np.ndarray) -> dict[str, object]:
    """Columns of (T, K) as 16-bit steps between each column's extremes: 0.8 mm off at most on a run of 100 m."""
    values = np.asarray(values, dtype=np.float64)
    low, high = values.min(axis=0), values.max(axis=0)
    step = (high - low) / 65535
    codes = np.divide(values - low, step, out=np.zeros_like(values), where=step > 0)
    return {"low": low.tolist(), "step": step.tolist(), "data": packed(np.rint(codes), "<u2")}


def packed(values: np.ndarray, dtype: str) -> str:
    """Little-endian numbers in base64."""
    return base64.b64encode(np.ascontiguousarray(values, dtype=dtype).tobytes()).decode("ascii")


def _read(name: str) -> str:
    return (_PAGE / name).read_text(encoding="utf-8")
