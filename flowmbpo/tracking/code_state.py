"""Which commit the installed code is: asked of git in a checkout, kept in a wheel by its build and in a job's copy.

The build (`hatch_build.py`) uses this module too, so it needs the standard library only.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

COMMIT_FILE = "commit.json"  # in the package, of a wheel and of a source archive
MAX_DIFF_BYTES = 2_000_000
# A patch that `git apply` takes, however the user likes to look at differences.
_PATCH = ("--no-ext-diff", "--no-textconv", "--no-color", "--src-prefix=a/", "--dst-prefix=b/", "--no-relative")


@dataclass(frozen=True)
class CodeState:
    """`commit` is empty where it is unknown, and `reason` says why. `diff`: what a checkout has beyond its commit;
    `snapshot`: the name of the copy, where a job runs one that was made at its submission."""

    commit: str = ""
    dirty: bool = False
    diff: str = ""
    reason: str = ""
    snapshot: str = ""

    def as_json(self) -> str:
        """What a build keeps of it; a copy for a job keeps the uncommitted changes too."""
        left_out = () if self.snapshot else ("diff", "snapshot")
        return json.dumps({key: value for key, value in asdict(self).items() if key not in left_out}) + "\n"


@functools.cache
def installed() -> CodeState:
    """State of the code that this process runs, as it was when first asked."""
    return state_of(Path(__file__).resolve().parents[2])


def state_of(root: Path) -> CodeState:
    """State of the code in `root`, the folder with the package in it. Never fails."""
    if (root / ".git").exists():  # an installed package inside somebody else's repository is not that repository
        return _of_checkout(root)
    try:
        found = json.loads((root / "flowmbpo" / COMMIT_FILE).read_text(encoding="utf-8"))
        texts = {key: str(found.get(key, "")) for key in ("diff", "snapshot")}
        return CodeState(str(found["commit"]), bool(found["dirty"]), reason=str(found["reason"]), **texts)
    except (OSError, ValueError, KeyError, TypeError):
        return CodeState(reason=f"{root} is no git checkout, and its build kept no commit")


def _of_checkout(root: Path) -> CodeState:
    try:
        commit = _git(root, "rev-parse", "HEAD").strip()
        status = _git(root, "status", "--porcelain").strip()
        diff = status + "\n" + _git(root, "diff", *_PATCH, "HEAD").strip() if status else ""
    except FileNotFoundError:
        return CodeState(reason=f"{root} is a git checkout, but there is no program git")
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines() or [f"exit code {error.returncode}"]
        return CodeState(reason=f"git in {root}: {said[0]}")
    except (OSError, subprocess.SubprocessError) as error:
        return CodeState(reason=f"git in {root}: {error}")
    return CodeState(commit, bool(status), diff[:MAX_DIFF_BYTES])


def _git(root: Path, *arguments: str) -> str:
    """Output of git about `root` itself. GIT_DIR and the like of the user's shell mean another repository; a checkout
    of another owner is read too, since its code is what runs here."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "--no-optional-locks", "-c", "safe.directory=*", "-C", str(root), *arguments]
    done = subprocess.run(
        command,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=10,
        check=True,
        env={**environment, "LC_ALL": "C"},
    )
    return done.stdout
