"""Writing an output file completely or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flowmbpo.errors import WorkFailed


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path with the same suffix, moved to `path` when the block ends well. Raises WorkFailed for I/O."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise WorkFailed(f"could not write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
