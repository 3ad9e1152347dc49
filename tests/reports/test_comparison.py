"""Comparisons of synthetic stores whose true numbers are known."""

import json
import sqlite3
import time

import numpy as np
import pytest

from flowmbpo.errors import UserError
from flowmbpo.reports import compare, statistics
from flowmbpo.reports.verdicts import Verdict
from flowmbpo.spec.identity import spec_hash
from flowmbpo.spec.registry import load_registry
from flowmbpo.tracking.run_tracker import flatten
from tests.reports.synthetic import STEPS

BASELINE, FLOW = "5M-baseline", "48M-flow-v2"


def fill(store):
    """Three seeds of each: the baseline collapses after 1,400; the flow climbs to 5,700."""
    for seed in range(3):
        climb = [100.0 * point + seed for point in range(15)]
        params = {"train.horizon": "16", "train.max_epochs": "15000", "world_model.kind": "mlp"}
        store.run(BASELINE, seed, [*climb, *[20.0] * 5], evaluations={5: 500, 10: 1100 + 10 * seed}, params=params)
        params = {"train.horizon": "16", "train.max_epochs": "20000", "world_model.kind": "flow"}
        params["world_model.substeps"] = "4"
        climb = [300.0 * point + seed for point in range(20)]
        store.run(FLOW, seed, climb, evaluations={9: 3000, 19: 5600 + 10 * seed}, params=params)


def row_of(comparison, name):
    (row,) = [row for row in comparison.document()["rows"] if row["name"] == name]
    return row


def test_rows_have_the_true_numbers(store, registry):
    fill(store)
    comparison = compare([BASELINE, "flow-v2"], tracking_uri=store.uri, registry=registry)
    row = row_of(comparison, BASELINE)
    assert (row["seeds"], row["seed_list"], row["runs"]) == (3, [0, 1, 2], 3)
    assert row["peak_reward"] == pytest.approx(1401.0)
    assert row["final_reward"] == 20.0
    assert row["last100_reward"] == pytest.approx(np.mean([100 * p + 1 for p in range(15)] + [20.0] * 5))
    assert row["eval_reward"] == pytest.approx(1110.0)
    assert row["eval_low"] == 1100.0
    assert row["eval_high"] == 1120.0
    assert row["stability"] == pytest.approx(np.mean([20 / (1400 + seed) for seed in range(3)]))
    assert (row["stability_verdict"], row["collapsed"]) == ("collapsed", 3)
    assert row["env_steps"] == 20 * STEPS
    assert row["wall_seconds"] == 21.0
    assert (row["env_steps_to_1200"], row["seconds_to_1200"], row["reached_1200"]) == (13 * STEPS, 13.0, 3)
    assert (row["env_steps_to_5000"], row["reached_5000"]) == (None, 0)
    assert (row["params"], row["params_total"], row["nominal_params"]) == (1_469_953, 2_638_072, "5M")
    assert row["expected"]["peak_reward"] == [1200.0, 1200.0]
    assert row["earlier"][0]["peak_reward"] == 1222.0
    assert row["published"]["final_reward"] == 9546.0
    flow = row_of(comparison, FLOW)
    assert (flow["stability"], flow["stability_verdict"]) == (1.0, "stable")
    assert flow["env_steps_to_5000"] == 18 * STEPS
    assert flow["params"] == 7_883_520 + 5_992_960 + 4_614_401


def test_throughput_is_what_was_logged_last_else_the_mean(store, registry):
    store.run(BASELINE, 0, [1.0, 2.0], metrics={"perf/env_steps_per_second": [100.0, 300.0]})
    store.run(FLOW, 0, [1.0, 2.0])
    comparison = compare([BASELINE, FLOW], tracking_uri=store.uri, registry=registry)
    assert row_of(comparison, BASELINE)["env_steps_per_second"] == 300.0
    assert row_of(comparison, FLOW)["env_steps_per_second"] == pytest.approx(2 * STEPS / 3.0)


def test_only_keys_that_differ_are_listed(store, registry):
    fill(store)
    comparison = compare([BASELINE, FLOW], tracking_uri=store.uri, registry=registry)
    assert comparison.spec_diff == {
        "train.max_epochs": {BASELINE: 15000, FLOW: 20000},
        "world_model.kind": {BASELINE: "mlp", FLOW: "flow"},
        "world_model.substeps": {BASELINE: None, FLOW: 4},
    }


def test_runs_of_one_row_that_disagree_are_told(store, registry):
    for seed, horizon in enumerate(("16", "4")):
        store.run(BASELINE, seed, [1.0], params={"train.horizon": horizon}, tags={"flowmbpo.spec_hash": horizon})
    comparison = compare([BASELINE], tracking_uri=store.uri, registry=registry)
    assert comparison.spec_diff == {"train.horizon": {BASELINE: {"mixed": [16, 4]}}}
    assert any("different specs" in note for note in comparison.notes)


def test_times_of_different_devices_are_marked(store, registry):
    for name, device in ((BASELINE, "NVIDIA L40S"), (FLOW, "NVIDIA H100")):
        store.run(name, 0, [1.0], tags={"flowmbpo.device": device})
    notes = compare([BASELINE, FLOW], tracking_uri=store.uri, registry=registry).notes
    (marked,) = [note for note in notes if "different devices" in note]
    assert f"{BASELINE} on NVIDIA L40S, {FLOW} on NVIDIA H100" in marked
    alone = compare([FLOW], tracking_uri=store.uri, registry=registry).notes
    assert not [note for note in alone if "different devices" in note]


def test_labels_are_no_difference(store, registry):
    store.run(BASELINE, 0, [1.0], params={"name": BASELINE, "expected.note": "a", "resources.cpus": "4"})
    store.run(FLOW, 0, [1.0], params={"name": FLOW, "expected.note": "b", "resources.cpus": "8"})
    assert compare([BASELINE, FLOW], tracking_uri=store.uri, registry=registry).spec_diff == {}


def test_the_verdict_names_the_better_one_first(store, registry):
    fill(store)
    (verdict,) = compare([BASELINE, FLOW], tracking_uri=store.uri, registry=registry).verdicts
    assert (verdict.better, verdict.worse, verdict.metric) == (FLOW, BASELINE, "eval/mean_reward")
    assert verdict.improvement.probability == 1.0
    assert not verdict.established  # three against three: chance alone does that in 1 of 10
    assert "was above 5M-baseline in 1.00 of the pairs" in str(verdict)
    assert "p = 0.1" in str(verdict)
    assert "better" not in str(verdict)


def test_without_evaluations_the_end_of_training_decides(store, registry):
    for seed in range(10):
        store.run(BASELINE, seed, [20.0 + seed])
        store.run(FLOW, seed, [1.0 + seed], evaluations={0: 9.0} if seed else None)
    (verdict,) = compare([BASELINE, FLOW], tracking_uri=store.uri, registry=registry).verdicts
    assert (verdict.better, verdict.established) == (BASELINE, True)
    assert verdict.metric.startswith("train/episode_reward")
    assert verdict.improvement.p_value == pytest.approx(
        1.8e-4, rel=0.02
    )  # normal approximation: SciPy is exact up to eight runs
    assert str(verdict).startswith(f"{BASELINE} is better than {FLOW}")


@pytest.mark.parametrize(
    ("runs", "ahead", "word"),
    [(9, 20.0, "fewer than 10 runs of each establish nothing"), (10, 2.0, "not established"), (10, 20.0, "is better")],
)
def test_the_word_better_needs_ten_runs_and_an_interval_without_one_half(runs, ahead, word):
    a, b = [ahead + run for run in range(runs)], [1.0 + run for run in range(runs)]
    verdict = Verdict("a", "b", "eval/mean_reward", statistics.improvement(a, b))
    assert word in str(verdict)
    assert ("better" in str(verdict)) == verdict.established == (word == "is better")


def test_one_seed_each_gets_no_interval(store, registry):
    store.run(BASELINE, 0, [5.0])
    store.run(FLOW, 0, [1.0])
    comparison = compare([BASELINE, FLOW], tracking_uri=store.uri, registry=registry)
    assert "interval needs at least two" in str(comparison.verdicts[0])
    assert any(note.startswith("one seed only") for note in comparison.notes)
    assert row_of(comparison, BASELINE)["eval_reward"] is None


def test_missing_failed_running_and_stale_runs_are_named(store, registry):
    today = spec_hash(load_registry(registry).resolve(BASELINE).spec)
    store.run(BASELINE, 0, [1.0], tags={"flowmbpo.spec_hash": today})
    store.run(BASELINE, 1, [2.0], tags={"flowmbpo.spec_hash": "old"}, params={"train.horizon": "4"})
    store.run(FLOW, 0, [3.0])
    failed = store.run(FLOW, 1, [500.0], status="FAILED")
    running = store.run(FLOW, 2, [600.0], status=None)
    comparison = compare([BASELINE, FLOW, "idle"], tracking_uri=store.uri, registry=registry)
    assert [run["run_id"] for run in comparison.failed] == [failed]
    assert [run["run_id"] for run in comparison.running] == [running]
    assert row_of(comparison, FLOW)["peak_reward"] == 3.0  # finished runs only
    (stale,) = comparison.stale
    assert stale["seed"] == 1
    assert stale["changed"]["train.horizon"] == {"run": 4, "registry": 16}
    assert {(entry["name"], entry["seed"]): entry["reason"] for entry in comparison.missing} == {
        (FLOW, 1): "1 failed",
        ("idle", None): "none finished (no runs)",
    }
    assert "idle" not in [row.name for row in comparison.rows]


def test_a_run_whose_process_is_gone_counts_as_killed(store, registry, monkeypatch):
    monkeypatch.setattr("flowmbpo.runs.heartbeats.silence", lambda run, beat, now: now)  # it never moved
    store.run(BASELINE, 0, [1.0])
    store.run(BASELINE, 1, [1.0], status=None, tags={"flowmbpo.host": "elsewhere", "flowmbpo.heartbeat": "1000"})
    comparison = compare([BASELINE], tracking_uri=store.uri, registry=registry)
    assert [run["status"] for run in comparison.failed] == ["KILLED"]
    assert comparison.running == []


def test_single_runs_of_any_status_by_id_prefix_or_name(store, registry):
    failed = store.run(FLOW, 1, [500.0, 400.0], status="FAILED")
    finished = store.run(FLOW, 0, [3.0])
    comparison = compare([failed, finished[:8], FLOW], tracking_uri=store.uri, registry=registry)
    assert [(row.name, row.status, row.is_experiment) for row in comparison.rows] == [
        (f"{FLOW}/seed-1", "FAILED", False),
        (f"{FLOW}/seed-0", "FINISHED", False),
        (FLOW, "FINISHED", True),
    ]
    assert row_of(comparison, f"{FLOW}/seed-1")["peak_reward"] == 500.0
    assert len(compare([f"{FLOW}/seed-1"], tracking_uri=store.uri, registry=registry).rows) == 1


def test_params_come_from_the_spec_that_really_ran(store, registry):
    spec = load_registry(registry).resolve(BASELINE, ["world_model.latent_dim=256"]).spec
    store.run(BASELINE, 0, [1.0], params=flatten(spec.model_dump(mode="json")), tags={"flowmbpo.spec_hash": "changed"})
    assert compare([BASELINE], tracking_uri=store.uri, registry=registry).rows[0].params < 1_469_953


def test_an_experiment_that_left_the_registry_still_compares(store, registry):
    store.run("gone", 0, [7.0])
    row = compare(["gone"], tracking_uri=store.uri, registry=registry).rows[0]
    assert (row.peak_reward, row.expected, row.params) == (7.0, None, None)


def test_runs_without_a_curve_or_with_broken_values(store, registry):
    store.run(BASELINE, 0, [])
    store.run(BASELINE, 1, [float("nan"), 10.0, float("inf")])
    comparison = compare([BASELINE], tracking_uri=store.uri, registry=registry)
    row = row_of(comparison, BASELINE)
    assert (row["peak_reward"], row["final_reward"], row["nonfinite"]) == (10.0, 10.0, 2)
    json.dumps(comparison.document(), allow_nan=False)


def test_a_dataframe_in_one_line(store, registry):
    fill(store)
    frame = compare([BASELINE, FLOW], tracking_uri=store.uri, registry=registry).to_dataframe()
    assert list(frame["name"]) == [BASELINE, FLOW]
    assert frame.set_index("name").loc[FLOW, "eval_reward"] == pytest.approx(5610.0)


def test_a_subset_equals_a_comparison_of_its_own(store, registry):
    fill(store)
    whole = compare([BASELINE, FLOW], tracking_uri=store.uri, registry=registry)
    assert whole.subset([FLOW]).document() == compare([FLOW], tracking_uri=store.uri, registry=registry).document()


@pytest.mark.parametrize("selectors", [[], ["nonsense"], ["idle"], ["5M-basline"]])
def test_wrong_names_are_the_users_mistake(store, registry, selectors):
    store.run(BASELINE, 0, [1.0])
    with pytest.raises(UserError) as error:
        compare(selectors, tracking_uri=store.uri, registry=registry)
    if selectors == ["5M-basline"]:
        assert BASELINE in str(error.value)


def test_an_empty_store_and_a_missing_one(store, registry, tmp_path):
    with pytest.raises(UserError, match="no finished runs"):
        compare([BASELINE], tracking_uri=store.uri, registry=registry)
    with pytest.raises(UserError, match="does not exist"):
        compare([BASELINE], tracking_uri=f"sqlite:///{tmp_path / 'none.db'}", registry=registry)


@pytest.mark.slow
def test_a_thousand_runs_cost_a_constant_number_of_queries_and_linear_time(store, registry, monkeypatch):
    """300 points each, written to the database directly; what is counted is queries, not seconds."""
    template = store.run(BASELINE, 0, [float(point) for point in range(300)], evaluations={299: 5.0})
    path = store.uri.removeprefix("sqlite:///")

    def grow(first: int, last: int) -> None:
        with sqlite3.connect(path) as db:
            for number in range(first, last):
                for table in ("runs", "metrics", "latest_metrics", "tags"):
                    names = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
                    chosen = ", ".join(f"'run-{number}'" if name == "run_uuid" else name for name in names)
                    db.execute(f"INSERT INTO {table} SELECT {chosen} FROM {table} WHERE run_uuid = ?", (template,))
                db.execute("UPDATE tags SET value = ? WHERE run_uuid = ? AND key = 'flowmbpo.seed'",
                           (str(number), f"run-{number}"))  # fmt: skip

    def measure() -> tuple[int, float]:
        statements: list[str] = []
        connect = sqlite3.connect

        def counting(*args, **kwargs):
            db = connect(*args, **kwargs)
            db.set_trace_callback(statements.append)
            return db

        monkeypatch.setattr(sqlite3, "connect", counting)
        begin = time.process_time()
        comparison = compare([BASELINE], tracking_uri=store.uri, registry=registry)
        seconds = time.process_time() - begin
        monkeypatch.setattr(sqlite3, "connect", connect)
        assert comparison.rows[0].peak_reward == 299.0
        return len(statements), seconds

    grow(1, 250)
    compare([BASELINE], tracking_uri=store.uri, registry=registry)  # imports
    few_queries, few_seconds = measure()
    grow(250, 1000)
    many_queries, many_seconds = measure()
    assert many_queries <= few_queries + 5  # one more batch of ids, not one more per run
    assert many_seconds < 4 * 2.5 * few_seconds
