"""A run that was really trained, once for each file of tests that looks at it."""

from pathlib import Path

import pytest

from tests.cli.point import train_point


@pytest.fixture(scope="module")
def trained_point(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `flowmbpo run point` has finished."""
    folder = tmp_path_factory.mktemp("trained")
    train_point(folder)
    return folder
