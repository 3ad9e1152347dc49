"""Fixtures of the tests that run whole commands."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.training.commands import REGISTRY, Workplace


@pytest.fixture
def new_workplace(tmp_path: Path, empty_database: Path) -> Iterator[Callable[..., Workplace]]:
    """Makes working directories with the registry `REGISTRY` and a store beside them; ends their processes."""
    places: list[Workplace] = []

    def make(name: str = "work") -> Workplace:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "experiments.toml").write_text(REGISTRY)
        shutil.copy(empty_database, tmp_path / f"{name}.db")
        places.append(Workplace(folder, tmp_path / f"{name}.db"))
        return places[-1]

    yield make
    for place in places:
        for command in place.commands:
            command.process.kill()
            command.process.join()


@pytest.fixture
def work(new_workplace: Callable[..., Workplace]) -> Workplace:
    """One such directory."""
    return new_workplace()
