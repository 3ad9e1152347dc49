"""What a job asks for: the registry's `resources`, then the user's `cluster.toml`, then the command's options.

Accounts and partitions belong to a user, not to an experiment, so they live in a file of the user's own that is not
committed. Not here: how the request is written down for Slurm (`slurm`).
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator
from pydantic_core import ErrorDetails

from flowmbpo.data_types import Document
from flowmbpo.errors import UserError
from flowmbpo.spec.schema import ResourcesSpec
from flowmbpo.spec.sections import PositiveInt

CLUSTER_FILE_VARIABLE = "FLOWMBPO_CLUSTER"
# sbatch options without which a job of ours does not work, and why or what to use instead
OURS = {
    "array": "the array has one task per seed: use --seeds and --parallel",
    "time": "use --time-limit",
    "cpus-per-task": "use --cpus",
    **dict.fromkeys(("requeue", "no-requeue"), "a job continues after its time limit by being requeued"),
    **dict.fromkeys(("output", "error", "open-mode", "job-name"), "`flowmbpo logs` and `jobs` rely on it"),
    **dict.fromkeys(("chdir", "wrap", "parsable", "test-only", "wait"), "flowmbpo decides it"),
    **dict.fromkeys(("nodes", "ntasks", "ntasks-per-node"), "a run is one process"),
}
Seconds = Annotated[int, Field(ge=10, le=3600)]


class JobRequest(ResourcesSpec):
    """The registry's resources and what only the one who submits can know."""

    setup: tuple[str, ...] = Field((), description="shell lines before the job's command, as in 'module load cuda'")
    checkpoint_seconds: Seconds = Field(120, description="between SIGUSR1 (write a checkpoint) and the time limit")
    max_requeues: PositiveInt = Field(50, description="how often a task may go back to the queue")
    parallel: PositiveInt | None = Field(None, description="tasks at once; default: Slurm all, local one per GPU")

    @field_validator("options", mode="after")
    @classmethod
    def _leave_ours_alone(cls, options: dict[str, str | bool]) -> dict[str, str | bool]:
        for given in options:
            if instead := OURS.get(given.lstrip("-")):
                raise ValueError(f"{given} cannot be set, {instead}")
        return options

    def document(self) -> Document:
        return self.model_dump(mode="json")

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> JobRequest:
        """As it was submitted, perhaps by another version: today's rules must not hide a job that waits."""
        return cls.model_construct(**{**document, "setup": tuple(document.get("setup", ()))})


def sbatch_options(given: list[str]) -> dict[str, str | bool] | None:
    """`KEY` and `KEY=VALUE` of the command line. Raises UserError."""
    parsed: dict[str, str | bool] = {}
    for text in given:
        key, equals, value = text.lstrip("-").partition("=")
        if not key:
            raise UserError(f"--option {text!r}: write KEY or KEY=VALUE, as in --option exclude=node07")
        parsed[key] = value if equals else True
    return parsed or None


def cluster_file(path: Path | None = None) -> Path | None:
    """The user's file: `path`, else $FLOWMBPO_CLUSTER, else ./cluster.toml, else ~/.config/flowmbpo/cluster.toml.

    Raises:
        UserError: a file that was named is not there.
    """
    named = path or (Path(os.environ[CLUSTER_FILE_VARIABLE]) if os.environ.get(CLUSTER_FILE_VARIABLE) else None)
    if named is not None:
        if not os.path.lexists(named):
            raise UserError(f"cluster file {named} does not exist")
        return named
    config = Path(os.path.expanduser(os.environ.get("XDG_CONFIG_HOME") or "~/.config"))  # Path.home() fails without one
    usual = (Path("cluster.toml"), config / "flowmbpo" / "cluster.toml")
    # Also a link that leads nowhere, or a folder: `read_cluster_file` says so, where another file would be wrong.
    return next((place for place in usual if os.path.lexists(place)), None)


def read_cluster_file(path: Path | None) -> dict[str, object]:
    """The `[cluster]` table of the user's file; empty without a file. Raises UserError."""
    if path is None:
        return {}
    try:
        document = tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        leads = f" (a link to {os.readlink(path)})" if path.is_symlink() else ""
        raise UserError(f"cluster file {path}{leads} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"cluster file {path} is no TOML: {error}") from None
    table = document.get("cluster", {})
    unknown = sorted(set(document) - {"cluster"})
    if unknown or not isinstance(table, dict):
        raise UserError(
            f"cluster file {path}: everything stands in one table [cluster]; found {', '.join(unknown) or table!r}"
        )
    return table


def job_request(
    resources: ResourcesSpec, mine: Mapping[str, object], options: Mapping[str, object], source: str
) -> JobRequest:
    """Merge the three layers, later ones win; tables of sbatch `options` are merged key by key.

    `source` names the user's file in messages. Raises UserError with every problem.
    """
    merged = {
        **resources.model_dump(mode="json"),
        **mine,
        **{key: value for key, value in options.items() if value is not None},
    }
    tables = [layer.get("options") or {} for layer in (resources.model_dump(), mine, options)]
    mappings = [table for table in tables if isinstance(table, Mapping)]
    if len(mappings) == len(tables):
        merged["options"] = {key: value for table in mappings for key, value in table.items()}
    try:
        return JobRequest.model_validate_json(json.dumps(merged, default=str))
    except ValidationError as error:
        problems = [_problem(item, mine, source) for item in error.errors()]
        raise UserError("\n".join(problems)) from None


def _problem(item: ErrorDetails, mine: Mapping[str, object], source: str) -> str:
    key = str(item["loc"][0]) if item["loc"] else ""
    where = f"{source} [cluster]" if key in mine else "resources"
    if item["type"] == "extra_forbidden":
        return f"{where}: {key!r} is unknown; allowed are {', '.join(sorted(JobRequest.model_fields))}"
    field = JobRequest.model_fields.get(key)
    said = item["msg"].removeprefix("Value error, ")
    meaning = f" ({field.description})" if field and field.description else ""
    return f"{where}: {key} = {item['input']!r}: {said}{meaning}"
