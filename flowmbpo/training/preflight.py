"""Whether a run would start here: each check says what it found, and a bad one how to cure it.

Every import that may be broken stands inside the check that is about it. Not here: Slurm (`cluster`), printing.
"""

from __future__ import annotations

import importlib
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import flowmbpo
from flowmbpo.data_types import Document
from flowmbpo.errors import UserError, WorkFailed
from flowmbpo.runs.layout import RUNS
from flowmbpo.spec.estimates import estimate
from flowmbpo.spec.schema import AntEnvSpec, Experiment
from flowmbpo.tracking.store import check_store, resolve_store

FREE_GB = 2.0  # besides what the experiments keep
CLOCK_SECONDS = 120.0  # a run counts as dead after ten minutes of silence


@dataclass(frozen=True)
class Check:
    """`fatal`: a job would fail with this."""

    name: str
    state: Literal["good", "bad", "not applicable"]
    found: str
    cure: str = ""
    fatal: bool = False

    def document(self) -> Document:
        return asdict(self)


class Bad(Exception):
    """What is wrong, and its cure."""

    def __init__(self, found: str, cure: str, *, fatal: bool = True) -> None:
        super().__init__(found)
        self.cure, self.fatal = cure, fatal


class NotApplicable(Exception):
    """Why a check means nothing here."""


def check(name: str, examine: Callable[[], str], cure: str = "") -> Check:
    """`examine` returns what it found good, or raises; `cure` is for what it did not foresee."""
    try:
        return Check(name, "good", examine())
    except NotApplicable as error:
        return Check(name, "not applicable", str(error))
    except Bad as error:
        return Check(name, "bad", str(error), error.cure, error.fatal)
    except (UserError, WorkFailed) as error:  # they say what to do
        return Check(name, "bad", "; ".join(str(error).splitlines()), cure, fatal=True)
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), "")
        return Check(name, "bad", f"{type(error).__name__}: {first}", cure, fatal=True)


def machine_checks(experiments: Sequence[Experiment], device: str, tracking_uri: str | None) -> list[Check]:
    """All that can be checked without knowing a cluster. `device`: auto, cpu or cuda."""
    kinds: set[str] = {experiment.env.kind for experiment in experiments}
    reinstall = "install flowmbpo again in this environment, or activate the right one before the job (`setup`)"
    torch = check("torch", lambda: _torch(device), reinstall)
    warp = "see the first lines of the error with `flowmbpo bench sim`; " + reinstall
    return [
        check("python", _python, reinstall),
        torch,
        check("simulator", lambda: _simulator(kinds, device, torch), warp),
        check("disk", lambda: _disk(experiments)),
        check("store", lambda: _store(tracking_uri)),
        check("clock", lambda: _clock(tracking_uri)),
    ]


def _python() -> str:
    from flowmbpo.tracking.provenance import package_version

    needed = [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in _requirements() if "extra ==" not in line]
    if missing := [name for name in needed if not package_version(name)]:
        raise Bad(f"{', '.join(missing)} not installed", f"pip install {' '.join(missing)}")
    place = Path(flowmbpo.__file__).parent
    return f"Python {platform.python_version()}, flowmbpo {flowmbpo.__version__} from {place}"


def _requirements() -> list[str]:
    try:
        return metadata.requires("flowmbpo") or []
    except metadata.PackageNotFoundError:
        return []  # a copy without an installation


def _torch(device: str) -> str:
    torch = importlib.import_module("torch")
    from flowmbpo.training.devices import choose_device, describe

    chosen = choose_device(device)
    square = torch.ones(64, 64, device=chosen)
    if float((square @ square).sum()) != 64.0**3:
        raise Bad(f"wrong product on {describe(chosen)}", "the device is broken: exclude this node")
    return f"torch {torch.__version__} on {describe(chosen)}"


def _simulator(kinds: set[str], device: str, torch: Check) -> str:
    """Compiles the Ant's kernels, as a run would do next, and takes one step."""
    if "ant" not in kinds:
        raise NotApplicable("no experiment here needs Warp")
    if torch.state == "bad":
        raise NotApplicable("needs torch")
    from flowmbpo.envs import make_env
    from flowmbpo.training.devices import choose_device

    begun = time.perf_counter()
    env = make_env(num_envs=1, seed=0, device=choose_device(device), **AntEnvSpec().model_dump())
    reward = float(env.step(env.reset().new_zeros(1, env.action_dim)).reward[0])
    if reward != reward:
        raise Bad("the first step is not finite", "compiled kernels may be damaged: empty Warp's cache")
    return f"Warp {metadata.version('warp-lang')}, kernels ready after {time.perf_counter() - begun:.1f} s"


def _disk(experiments: Sequence[Experiment]) -> str:
    """Room for what a run keeps: two resumable states while one replaces the other, and checkpoints."""
    costs = [estimate(experiment) for experiment in experiments]
    need = FREE_GB + max((2 * (cost.replay_gb + cost.weights_gb) for cost in costs), default=0.0)
    place = RUNS.absolute() if RUNS.is_dir() else Path.cwd()
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(1 << 20))
    except OSError as error:
        raise Bad(f"{place} cannot be written: {error.strerror}", "make room, or submit from another folder") from None
    free = shutil.disk_usage(place).free / 1e9
    if free < need:
        raise Bad(f"{free:.1f} GB free in {place}, {need:.1f} needed", "make room, or submit from another folder")
    return f"{free:,.0f} GB free in {place}"


def _store(tracking_uri: str | None) -> str:
    from flowmbpo.tracking.mlflow_client import Unreachable
    from flowmbpo.tracking.mlflow_writer import MlflowWriter

    store = resolve_store(tracking_uri)
    if not check_store(store, write=True):
        return f"{store} will be made by the first run"
    try:
        MlflowWriter(store).check()
    except Unreachable as error:
        cure = (
            "start the server or correct MLFLOW_TRACKING_URI; until then runs keep their entries, and `flowmbpo sync`"
        )
        raise Bad(str(error), f"{cure} delivers them", fatal=False) from None
    return f"{store} is written to"


def _clock(tracking_uri: str | None) -> str:
    """This machine's clock against the server's, or against that of the disk with the sqlite file."""
    from email.utils import parsedate_to_datetime

    store = resolve_store(tracking_uri)
    if store.is_server:
        try:
            with urlopen(Request(store.uri, method="HEAD"), timeout=10) as answer:
                date = answer.headers["Date"]
        except HTTPError as error:
            date = error.headers["Date"]
        except OSError:
            raise NotApplicable("the store does not answer") from None
        there = parsedate_to_datetime(date).timestamp()
    elif store.sqlite and store.sqlite.parent.is_dir():
        try:
            with tempfile.NamedTemporaryFile(dir=store.sqlite.parent) as file:
                there = Path(file.name).stat().st_mtime
        except OSError:
            raise NotApplicable("the store's folder cannot be written to") from None
    else:
        raise NotApplicable("this store shows no clock")
    apart = time.time() - there
    if abs(apart) > CLOCK_SECONDS:
        cure = "set the clock (NTP): other machines would take living runs for dead ones"
        raise Bad(f"{apart:+.0f} s from that of {store}", cure, fatal=False)
    return f"within {max(1, round(abs(apart)))} s of that of {store}"
