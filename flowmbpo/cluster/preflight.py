"""`flowmbpo doctor` in a job, on its node and in its environment, before anything is trained."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress

from flowmbpo.cluster.submission import Submission
from flowmbpo.runs.lock import hostname

SECONDS = 600.0


def failure(submission: Submission, names: Iterable[str], environment: Mapping[str, str]) -> str:
    """Why a run would fail here, with the cure; empty when it would not. All that was found goes to the log."""
    command = [sys.executable, "-P", "-m", "flowmbpo", "doctor", *names, "--device", submission.device]
    command += ["--registry", str(submission.files.registry), "--json"]
    where = f"preflight on {hostname()} failed: "
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            timeout=SECONDS,
            check=False,
            env=environment,
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        return f"{where}no end within {SECONDS:.0f} s (cure: a file system or the device hangs; try another node)"
    say(done.stderr)
    try:
        checks = json.loads(done.stdout)
    except ValueError:
        said = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), f"exit {done.returncode}")
        return f"{where}{said.strip()} (cure: repair the environment of {sys.executable}, or name another in `setup`)"
    for check in checks:
        say(f"preflight: {check['name']} {check['state']}: {check['found']}")
    wrong = [
        f"{check['name']}: {check['found']}" + (f" (cure: {check['cure']})" if check["cure"] else "")
        for check in checks
        if check["fatal"]
    ]
    return where + "; ".join(wrong) if wrong else ""


def say(text: str) -> None:
    """A line of the log; a full disk costs the line and not the task."""
    with suppress(OSError):
        print(text, flush=True)
