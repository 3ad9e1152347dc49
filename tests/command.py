"""`flowmbpo` as the tests call it: in a process of its own here, in the tests' process by the fixture `flowmbpo`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = (sys.executable, "-m", "flowmbpo")


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err

    def json(self) -> Any:
        return json.loads(self.out)


def environment() -> dict[str, str]:
    """That of the tests, without what a user of flowmbpo or MLflow has put there."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("FLOWMBPO_", "MLFLOW_"))}
    return kept | {"OMP_NUM_THREADS": "1"}


def run_process(
    *arguments: object,
    program: Sequence[str] = PROGRAM,
    folder: Path | bytes | None = None,
    code: int = 0,
    variables: Mapping[str, str] | None = None,
    only: Mapping[str, str] | None = None,
) -> Outcome:
    """`flowmbpo ARGUMENTS...` in a process of its own, in `folder`; it must end with `code`, and without a traceback.

    Its environment is `environment()` with `variables`, or `only` what is given. Another `program` may end in a
    traceback.
    """
    words = [argument if isinstance(argument, bytes) else str(argument) for argument in arguments]
    surroundings = dict(only) if only is not None else environment() | dict(variables or {})
    done = subprocess.run([*program, *words], cwd=folder, env=surroundings, capture_output=True, text=True, check=False)
    outcome = Outcome(done.returncode, done.stdout, done.stderr)
    assert outcome.code == code, outcome.text
    assert program is not PROGRAM or "Traceback" not in outcome.text, outcome.text
    return outcome
