"""Where a run comes from: commit and uncommitted changes, versions, hardware, command line. It never fails.

Not here: the spec (that is `flowmbpo.spec`) and writing any of it (`run_tracker`).
"""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

from flowmbpo.data_types import Document
from flowmbpo.spec import extensions
from flowmbpo.tracking import code_state

_PACKAGES = ("flowmbpo", "torch", "warp-lang", "mlflow", "numpy", "pydantic", "safetensors")
_SLURM = {
    "flowmbpo.slurm_job_id": "SLURM_JOB_ID",
    "flowmbpo.slurm_array_job_id": "SLURM_ARRAY_JOB_ID",
    "flowmbpo.slurm_array_task_id": "SLURM_ARRAY_TASK_ID",
    "flowmbpo.slurm_node": "SLURMD_NODENAME",
    # set by flowmbpo.cluster for every job, with or without Slurm
    "flowmbpo.job": "FLOWMBPO_JOB",
    "flowmbpo.job_task": "FLOWMBPO_JOB_TASK",
    "flowmbpo.node": "FLOWMBPO_NODE",
    "flowmbpo.queue_seconds": "FLOWMBPO_QUEUE_SECONDS",
}


@dataclass(frozen=True)
class Provenance:
    """What is known; empty where it is not."""

    code: code_state.CodeState
    command: str = ""
    python: str = ""
    platform: str = ""
    cpu: str = ""
    cpu_count: int = 0
    memory_gb: float = 0.0
    gpus: tuple[str, ...] = ()
    packages: dict[str, str] = field(default_factory=dict)
    slurm: dict[str, str] = field(default_factory=dict)

    def tags(self) -> dict[str, str]:
        """The part that is searched for."""
        return {
            "flowmbpo.git_commit": self.code.commit or "unknown",
            "flowmbpo.git_dirty": str(self.code.dirty).lower(),
            **({} if self.code.commit else {"flowmbpo.git_unknown": self.code.reason}),
            **({"flowmbpo.code_snapshot": self.code.snapshot} if self.code.snapshot else {}),
            "flowmbpo.version": self.packages.get("flowmbpo", "unknown"),
            "flowmbpo.command": self.command[:5000],
            **self.slurm,
        }

    def document(self) -> Document:
        """All of it but the diff, as JSON-able data."""
        code = {key: value for key, value in asdict(self.code).items() if key != "diff"}
        return {**code, **{key: value for key, value in asdict(self).items() if key != "code"}}


def collect(source: Path | None = None) -> Provenance:
    """Provenance of this process; `source` is a folder with the code, if not what runs here."""
    return Provenance(
        code=code_state.state_of(source) if source else code_state.installed(),
        command=shlex.join(sys.argv),
        python=platform.python_version(),
        platform=platform.platform(),
        cpu=_cpu_name(),
        cpu_count=usable_cpus(),
        memory_gb=_memory_gb(),
        gpus=gpu_names(),
        packages={name: version for name in (*_PACKAGES, *extensions.packages()) if (version := package_version(name))},
        slurm={tag: os.environ[variable] for tag, variable in _SLURM.items() if os.environ.get(variable)},
    )


def package_version(package: str) -> str:
    """Of an installed distribution; empty for one that is not there."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def usable_cpus() -> int:
    """CPUs that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0


def _memory_gb() -> float:
    import psutil

    return round(psutil.virtual_memory().total / 2**30, 1)


def gpu_names() -> tuple[str, ...]:
    return query_gpus("name,memory.total")


def query_gpus(fields: str) -> tuple[str, ...]:
    """These of each GPU, from the driver's own tool: this room does not import torch."""
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in done.stdout.splitlines() if line.strip())
