"""Replays: a recorded episode as an interactive 3D page, a film or an animated picture. Runs no policy."""

from flowmbpo.reports.replay.html import write_replay_html

__all__ = ["write_replay_html"]
