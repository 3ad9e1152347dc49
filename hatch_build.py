"""Keeps the commit in wheels and source archives: once installed there is no checkout to ask."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CommitHook(BuildHookInterface):
    """Adds `flowmbpo/commit.json`. An editable install asks its checkout whenever it runs."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        sys.path.insert(0, self.root)
        from flowmbpo.tracking.code_state import COMMIT_FILE, state_of

        root = Path(self.root)
        # Built from a source archive, the package holds the file already.
        if version != "editable" and not (root / "flowmbpo" / COMMIT_FILE).exists():
            self._folder = tempfile.TemporaryDirectory()
            file = Path(self._folder.name) / COMMIT_FILE
            file.write_text(state_of(root).as_json(), encoding="utf-8")
            build_data["force_include"][str(file)] = f"flowmbpo/{COMMIT_FILE}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if hasattr(self, "_folder"):
            self._folder.cleanup()
