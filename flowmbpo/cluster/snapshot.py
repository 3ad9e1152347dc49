"""The code of a job: a copy of the package as it was at submission, one per content, from which the job imports.

Uncommitted changes are in it, and its `commit.json` is what the runs' provenance shows. Packages that flowmbpo
depends on are not copied.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import flowmbpo
from flowmbpo.cluster.submission import Submission, read_submissions
from flowmbpo.runs.files import atomic_folder, locked
from flowmbpo.runs.layout import QueueFiles
from flowmbpo.tracking import code_state

PACKAGE = Path(flowmbpo.__file__).resolve().parent


def take(jobs: Path) -> str:
    """Copy the package that runs now unless that has been done; returns the name of the copy below `jobs`/code."""
    files = sorted(path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix != ".pyc")
    state = replace(code_state.state_of(PACKAGE.parent), snapshot="")  # a job that submits runs from a copy itself
    digest = hashlib.sha256(state.as_json().encode())
    for path in files:
        if path.name != code_state.COMMIT_FILE:
            digest.update(f"\0{path.relative_to(PACKAGE)}\0".encode() + path.read_bytes())
    name = digest.hexdigest()[:16]
    target = QueueFiles(jobs).code / name
    if not target.is_dir():
        with atomic_folder(target) as new:
            shutil.copytree(PACKAGE, new / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
            commit = replace(state, snapshot=name).as_json()
            (new / PACKAGE.name / code_state.COMMIT_FILE).write_text(commit, encoding="utf-8")
    return name


def missing(submission: Submission) -> str:
    """Why the code that was submitted is not the one that runs; empty when it is."""
    if submission.code_folder in (None, PACKAGE.parent):
        return ""
    return (
        f"the submitted code {submission.code_folder} is not what runs here ({PACKAGE}): was it removed? submit again"
    )


def prune(jobs: Path, ended: Collection[Path]) -> None:
    """Remove the copies that no job needs any more; `ended` are the folders of submissions whose tasks are all over.

    None is removed while a submission cannot be read, because which one that needs is not known.
    """
    if not QueueFiles(jobs).code.is_dir():
        return
    with locked(QueueFiles(jobs).code_lock, 0.0) as file:  # else somebody is submitting
        if file is None:
            return
        known, damaged = read_submissions(jobs)
        if damaged:
            return
        needed = {submission.code for submission in known if submission.folder not in ended}
        for copy in QueueFiles(jobs).code.iterdir():
            if copy.name not in needed:
                shutil.rmtree(copy, ignore_errors=True)
        with suppress(OSError):
            QueueFiles(jobs).code.rmdir()  # if it is empty
