"""Which variables of the submitting shell a job must not see. Knows no submission."""

from __future__ import annotations

import os
from collections.abc import Collection

# How the client programs reach Slurm; every other SLURM_* describes the allocation that the shell is in.
_CLIENT = {"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_CLUSTERS"}
_ALLOCATION = ("SLURM_", "SLURMD_", "SRUN_", "PMI_", "PMIX_")
_DEVICES = {"CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ROCR_VISIBLE_DEVICES"}
# Slurm lets SBATCH_* override the batch script. These say where a job may run, which a script may leave open.
_PLACES = {"ACCOUNT", "CLUSTERS", "CONSTRAINT", "EXPORT", "PARTITION", "QOS", "RESERVATION"}
_FILTERS = ("SQUEUE_", "SACCT_", "SCANCEL_")  # the user's own views and questions


def misleading(decided: Collection[str]) -> list[str]:
    """Variables that `sbatch` must not see; `decided` are the long options that the batch script gives."""
    said = {option.upper().replace("-", "_") for option in decided}
    return [name for name in sorted(os.environ) if _misleads(name, said)]


def _misleads(name: str, said: Collection[str]) -> bool:
    if name.startswith("SBATCH_"):
        option = name.removeprefix("SBATCH_")
        return option not in _PLACES or option in said
    if name in _DEVICES:
        return "SLURM_JOB_ID" in os.environ  # those of the allocation
    return name.startswith(_ALLOCATION) and name not in _CLIENT


def for_questions() -> dict[str, str]:
    """For `squeue` and its like, whose answers are parsed."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_FILTERS)}
