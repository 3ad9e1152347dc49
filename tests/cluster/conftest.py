"""Submissions and stand-ins for Slurm's programs, for tests that need no cluster; a real Slurm for those that do."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flowmbpo.cluster.request import JobRequest
from flowmbpo.cluster.submission import Submission
from tests.cluster.real_slurm import PROGRAMS, REGISTRY, SCRIPT, Cluster
from tests.command import Outcome

Programs = Callable[..., Path]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory without any cluster file of the user's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("FLOWMBPO_CLUSTER", raising=False)
    return tmp_path


@pytest.fixture
def make_submission(directory: Path) -> Callable[..., Submission]:
    def make(**changes: object) -> Submission:
        folder = directory / "runs" / "jobs" / str(changes.pop("stamp", "20251118-100000-tiny-ab12"))
        folder.mkdir(parents=True, exist_ok=True)
        values = {
            "folder": folder,
            "cluster": "slurm",
            "name": "tiny",
            "seeds": (0, 1),
            "directory": directory,
            "tracking_uri": f"sqlite:///{directory}/mlflow.db",
            "request": {"gpus": 0, "memory_gb": 16.0},
            "submitted_at": time.time(),
            "job_id": "123",
        }
        values |= changes
        values["request"] = JobRequest.model_validate(values["request"])
        submission = Submission(**values)  # type: ignore[arg-type]
        submission.save()
        return submission

    return make


@pytest.fixture
def programs(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Put shell scripts in front of PATH: `programs(squeue="echo ...")`; returns their folder.

    Each call is written down in `calls` there.
    """
    folder = tmp_path_factory.mktemp("bin")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def install(**scripts: str) -> Path:
        for name, body in scripts.items():
            program = folder / name
            program.write_text(f'#!/bin/sh\necho "{name} $*" >> {folder}/calls\n{body}\n')
            program.chmod(0o755)
        return folder

    return install


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Configuration of a Slurm that runs for these tests."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: run `{SCRIPT} install` as root")
    folder = tmp_path_factory.mktemp("slurm")
    started = subprocess.run([SCRIPT, "start", folder], capture_output=True, text=True, check=False)
    try:
        if started.returncode:
            pytest.skip(f"Slurm does not start on this machine: {started.stderr.strip()[-500:]}")
        yield folder / "slurm.conf"
    finally:
        environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        subprocess.run(["scancel", f"--user={getpass.getuser()}"], env=environment, check=False, timeout=60)
        subprocess.run([SCRIPT, "stop", folder], check=True)


@pytest.fixture
def cluster(tmp_path: Path, slurm: Path, flowmbpo: Callable[..., Outcome]) -> Iterator[Cluster]:
    (tmp_path / "experiments.toml").write_text(REGISTRY)
    found = Cluster(tmp_path, slurm, flowmbpo)
    yield found
    found.clear()
