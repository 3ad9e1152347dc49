"""What is said before a run about how long it takes, and what to run instead of one that takes days."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace

import pytest

from flowmbpo.cli import forecast
from flowmbpo.runs.lock import HOST_TAG, hostname
from flowmbpo.spec.estimates import estimate
from flowmbpo.spec.identity import flatten, spec_hash
from flowmbpo.spec.learning import PretrainSpec
from flowmbpo.spec.registry import load_registry
from flowmbpo.tracking.metrics import EPOCH, EPOCH_SECONDS
from flowmbpo.tracking.records import Latest, RunRecord
from tests.cli.point import REGISTRY

MEASURED = forecast.gigaflops.__wrapped__


@pytest.fixture(autouse=True)
def speed(monkeypatch):
    """A machine of 60 GFLOP/s without a GPU."""
    monkeypatch.setattr(forecast, "gigaflops", lambda: 60.0)
    monkeypatch.setattr("flowmbpo.tracking.provenance.gpu_names", lambda: ())


def run_of(spec, seconds: float, epoch: int = 500, **tags: str) -> RunRecord:
    known = {"flowmbpo.spec_hash": spec_hash(spec), "flowmbpo.device": "cpu", HOST_TAG: hostname()}
    metrics = {EPOCH_SECONDS: Latest(seconds, 0, 0.0), EPOCH: Latest(float(epoch), 0, 0.0)}
    params = {key: str(value) for key, value in flatten(spec).items()}
    return RunRecord("a", "a", "1", "x/seed-0", "FINISHED", 0.0, 1.0, params, known | tags, metrics)


def test_weeks_are_announced_with_what_to_run_instead(flowmbpo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = flowmbpo("run", "flow-v2", "--dry-run", "--device", "cpu", "--json")
    assert done.code == 0
    (row,) = done.json()
    assert row["estimated_first_updates_seconds"] > 6 * 3600
    epochs = 20_000 * row["estimated_epoch_seconds"]
    assert row["estimated_seconds"] == pytest.approx(epochs + row["estimated_first_updates_seconds"])
    assert row["estimated_seconds"] > 30 * forecast.DAY
    assert "48M-flow-v2: about" in done.err
    assert "flowmbpo submit 48M-flow-v2" in done.err
    name = done.err.split("flowmbpo run ")[1].split("`")[0]
    spec = load_registry(None).resolve(name).spec
    assert (spec.world_model.kind, spec.world_model.integrator, spec.world_model.substeps) == ("flow", "heun", 4)
    assert forecast.forecast(spec, None, "cpu", []).seconds < forecast.DAY / 2


def test_a_time_limit_and_a_short_experiment_need_no_advice(flowmbpo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments in (["flow-v2", "--time-limit", "2h"], ["flow-v2", "--epochs", "2"], ["pointmass"]):
        done = flowmbpo("run", *arguments, "--dry-run", "--device", "cpu")
        assert "about" in done.err
        assert "instead" not in done.err


def test_submit_tells_it_too(flowmbpo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = flowmbpo("submit", "5M-baseline", "quickstart", "--cluster", "local", "--dry-run", "--json")
    assert [row["estimated_seconds"] > 0 for row in done.json()] == [True, True]
    done = flowmbpo("submit", "48M-flow-v2", "--cluster", "slurm", "--dry-run")
    assert "48M-flow-v2: how long it takes is not known" in done.err
    assert "the registry expects 6 to 10 hours" in done.err


def test_a_run_says_it_before_it_starts(flowmbpo, tmp_path, monkeypatch, empty_database):
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    (tmp_path / "experiments.toml").write_text(REGISTRY)
    monkeypatch.chdir(tmp_path)
    done = flowmbpo("run", "point", "--device", "cpu", "--json")
    assert done.code == 0
    assert done.err.index("point: about") < done.err.index("preparing")
    again = flowmbpo("run", "point", "--dry-run", "--json")
    assert json.loads(again.out)[0]["estimate_from"] == "measured in earlier runs"


def test_who_takes_a_part_is_told_how_long_the_policy_rests_and_a_limit_beyond_it(flowmbpo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = flowmbpo("run", "48M-flow-v2", "--dry-run", "--device", "cpu")
    spec = load_registry(None).resolve("48M-flow-v2").spec
    rests = forecast.forecast(spec, None, "cpu", []).rest_seconds
    assert f"its policy rests for the first {forecast.spoken(rests)}" in done.err
    hours = int(done.err.split("--time-limit ")[1].split("h;")[0])
    assert 2 * rests <= 3600 * hours < 2 * rests + 3600


@pytest.mark.parametrize(("epoch", "counts"), [(2, False), (10, False), (19, False), (20, True)])
def test_epochs_at_rest_and_those_of_the_first_updates_tell_nothing_of_the_others(epoch, counts):
    spec = load_registry(None).resolve("48M-flow-v2").spec  # rests until epoch 10, a point every 10 epochs
    found = forecast.forecast(spec, None, "cpu", [run_of(spec, 1.7, epoch)])
    assert (found.basis == "measured in earlier runs") == counts
    assert (found.epoch_seconds == 1.7) == counts


def test_a_part_in_which_the_policy_does_not_change_is_announced(flowmbpo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def said(name: str, *options: str) -> bool:
        done = flowmbpo("run", name, "--dry-run", "--device", "cpu", *options)
        assert done.code == 0
        return f"the policy does not change in this part of {name}" in done.err

    assert said("5M-baseline", "--epochs", "9")
    assert not said("5M-baseline", "--epochs", "10")
    assert said("48M-baseline", "--time-limit", "30m")
    assert not said("48M-baseline", "--time-limit", "30h")
    assert not said("quickstart-oracle", "--epochs", "1")


def test_first_updates_count_once_they_are_reached():
    spec = load_registry(None).resolve("quickstart").spec
    train = spec.train.model_copy(update={"warmup_epochs": 5, "wm_updates": 8, "wm_first_updates": 300})
    spec = spec.model_copy(update={"train": train})

    def predicted(epochs: int, **changes: object) -> forecast.Forecast:
        changed = spec.model_copy(update={"train": train.model_copy(update=changes)})
        return forecast.forecast(changed, epochs, "cpu", [])

    early = predicted(4)
    assert early.seconds == pytest.approx(4 * early.epoch_seconds)
    reached = predicted(5)
    assert reached.seconds == pytest.approx(5 * reached.epoch_seconds + reached.first_seconds)
    assert reached.rest_seconds == reached.seconds
    # eight updates are a part of an epoch: 300 take between a quarter of 300/8 epochs and all of them
    assert 300 / 8 / 4 < reached.first_seconds / reached.epoch_seconds < 300 / 8
    assert predicted(5, wm_first_updates=600).first_seconds == pytest.approx(2 * reached.first_seconds)
    assert predicted(5, wm_first_epoch=6).seconds == pytest.approx(5 * reached.epoch_seconds)
    recorded = predicted(1, pretrain=PretrainSpec(data="data", updates=600))
    assert recorded.seconds == pytest.approx(recorded.epoch_seconds + 2 * reached.first_seconds)
    oracle = load_registry(None).resolve("quickstart-oracle").spec
    assert forecast.forecast(oracle, None, "cpu", []).rest_seconds == 0


def test_wide_networks_waste_less_on_what_is_no_product():
    def seconds_per_gflop(name: str) -> float:
        spec = load_registry(None).resolve(name).spec
        return forecast.forecast(spec, None, "cpu", []).epoch_seconds / estimate(spec).epoch_gflop

    # measured on one core: 2.8, 1.7 and 1.3 times the products alone (docs/performance.md)
    narrow, wide, widest = map(seconds_per_gflop, ("latent-baseline", "5M-baseline", "48M-baseline"))
    assert narrow / wide == pytest.approx(2.84 / 1.75, rel=0.2)
    assert wide / widest == pytest.approx(1.75 / 1.26, rel=0.2)


def test_what_was_measured_counts_more_than_what_is_estimated():
    spec = load_registry(None).resolve("quickstart").spec
    measured = run_of(spec, 2.0)
    assert forecast.forecast(spec, 4, "cpu", [measured]).seconds == pytest.approx(8.0)
    others = [
        run_of(spec, 9.0, **{HOST_TAG: "elsewhere"}),
        run_of(spec, 9.0, **{"flowmbpo.device": "NVIDIA L40S"}),
        run_of(spec, 9.0, **{"flowmbpo.spec_hash": "other"}),
        replace(measured, metrics={}),
    ]
    assert forecast.forecast(spec, 10, "cpu", others).basis.startswith("estimated")
    assert forecast.forecast(spec, 4, "L40S", others).seconds == pytest.approx(36.0)


def test_a_machine_that_others_use_is_not_taken_for_a_slow_one(monkeypatch):
    alone, clock = MEASURED(), time.perf_counter
    monkeypatch.setattr(time, "perf_counter", lambda: 10 * clock())  # most of it is waiting
    assert MEASURED() > alone / 4
    spec = load_registry(None).resolve("quickstart").spec
    monkeypatch.setattr("os.getloadavg", lambda: (1000.2, 0.0, 0.0))
    assert "1,000 processes share" in forecast.forecast(spec, None, "cpu", []).basis
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))
    assert "share" not in forecast.forecast(spec, None, "cpu", []).basis


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.123, "0.12 s"), (80, "80 s"), (95, "1.6 min"), (3_600, "60 min"), (7_200, "2.0 h"), (864_000, "10 days")],
)
def test_durations_are_said_in_two_digits(seconds, words):
    assert forecast.spoken(seconds) == words
