"""The two ways in which a command ends badly; everything else that escapes is a bug of ours and shows a traceback."""

from __future__ import annotations


class UserError(ValueError):
    """The user's input was wrong: exit code 2. The message says what was given, what is allowed and what to do."""


class WorkFailed(RuntimeError):
    """The input was right but the work could not be done (diverged, disk full, server away): exit code 1."""
