"""The training loop: what it logs and keeps, exact continuation, refused values, stopping."""

import time

import pytest
import torch

from flowmbpo.algorithms.starts import Starts
from flowmbpo.errors import WorkFailed
from flowmbpo.runs import checkpoint
from flowmbpo.runs.journal import PHASE_TAG
from flowmbpo.runs.layout import RunFiles
from flowmbpo.spec.schema import Experiment
from flowmbpo.training import builder, loading
from flowmbpo.training import trainer as trainer_module
from flowmbpo.training.checkpoint_writer import CheckpointWriter
from flowmbpo.training.clock import PhaseClock
from flowmbpo.training.monitor import CollapseMonitor
from flowmbpo.training.signals import StopRequest
from flowmbpo.training.trainer import Trainer
from tests.training.tiny import MemoryTracker, QuietWatcher, tiny

CLOCKS = ("perf/",)  # the only metrics that may differ between two equal runs


def make(
    tmp_path, experiment: Experiment, *, stop_epoch: int | None = None, stop: StopRequest | None = None
) -> Trainer:
    built = builder.build(experiment, 7, "cpu")
    tracker = MemoryTracker()
    return Trainer(
        experiment=experiment,
        algorithm=built.algorithm,
        env=built.env,
        evaluator=built.evaluator,
        held_out=built.held_out,
        tracker=tracker,
        checkpoints=CheckpointWriter(RunFiles(tmp_path), experiment, 7, tracker),
        watcher=QuietWatcher(),
        stop=StopRequest() if stop is None else stop,
        stop_epoch=stop_epoch or experiment.train.max_epochs,
        time_limit=None,
        clock=PhaseClock("cpu"),
    )


def points(trainer: Trainer) -> dict[tuple[int, str], float]:
    tracker = trainer.tracker
    assert isinstance(tracker, MemoryTracker)
    return {
        (step, name): value
        for step, metrics in tracker.points
        for name, value in metrics.items()
        if not name.startswith(CLOCKS)
    }


def flat(state, prefix="") -> dict[str, object]:
    if isinstance(state, list):
        state = dict(enumerate(state))
    if isinstance(state, dict):
        return {k: v for key, item in state.items() for k, v in flat(item, f"{prefix}/{key}").items()}
    return {prefix: state}


def assert_same_state(a: Trainer, b: Trainer) -> None:
    left, right = flat(a.state_dict()), flat(b.state_dict())
    assert left.keys() == right.keys()
    for key in left:
        if "/seconds" in key or key.endswith("elapsed"):
            continue
        if isinstance(left[key], torch.Tensor):
            assert torch.equal(left[key], right[key]), key
        else:
            assert left[key] == right[key], key


def test_the_best_of_several_starts_goes_on(tmp_path):
    """A learner, once tried, waits as it was left; the one that earned most takes all epochs that are left."""
    trainer = make(tmp_path, tiny(starts=3, start_epochs=2))
    starts = trainer.algorithm
    assert isinstance(starts, Starts)
    first, second, third = (learner.actor.trunk[0].linear.weight for learner in starts.learners)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    assert torch.equal(starts.learners[0].collector.obs, trainer.env.state_dict()["env"]["obs"])
    trainer.stop_epoch, earned, schedule = 6, [], []
    begin = starts.begin_epoch

    def watched(epoch: int) -> str:
        earned.append(starts.current.collector.experience.rewards.mean().item())
        news = begin(epoch)
        schedule.append((starts.learners.index(starts.current), starts.current.epoch))
        return news

    starts.begin_epoch = watched
    trainer.train()
    assert schedule == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    trainer.stop_epoch = 8
    trainer.train()
    scores = [earned[2], earned[4], earned[6]]
    best = scores.index(max(scores))
    assert schedule[6:] == [(best, 2), (best, 3)]
    assert points(trainer)[8 * 64, "train/start"] == best + 1
    assert max(value for (_, name), value in points(trainer).items() if name == "train/episode_length") <= 20
    assert {learner.train.max_epochs for learner in starts.learners} == {4}
    messages = [text for text, _ in trainer.watcher.messages]
    assert f"epoch 6: start 3 of 3 earned {scores[2]:.2f} a step; start {best + 1} goes on" in messages


RECIPES = {
    "published": {},
    "from_visited": {"imagination": "from_visited", "normalize_observations": True},
    "several_starts": {"starts": 3, "start_epochs": 2},
}


@pytest.fixture(scope="module", params=[(kind, recipe) for kind in ("mlp", "flow") for recipe in RECIPES], ids="-".join)
def uninterrupted(request, tmp_path_factory):
    kind, recipe = request.param
    whole = make(tmp_path_factory.mktemp("whole"), tiny(kind=kind, **RECIPES[recipe]))
    whole.train()
    return whole


@pytest.mark.parametrize("k", [1, 2, 3, 5, 7])
def test_resuming_is_exact(tmp_path, monkeypatch, uninterrupted, k):
    """Interrupted after k epochs (the replay wraps around at 3, episodes are cut), read back from disk."""
    monkeypatch.setattr(trainer_module, "PATIENCE_SECONDS", 1e9)  # a busy machine would end the phase in its middle
    whole, experiment = uninterrupted, uninterrupted.experiment

    stop = StopRequest()
    first = make(tmp_path / "parts", experiment, stop=stop)
    begin = first.algorithm.begin_epoch

    def interrupted(epoch: int) -> str:  # the signal arrives in the middle of epoch k
        stop.signum = 15 if epoch == k - 1 else None
        return begin(epoch)

    first.algorithm.begin_epoch = interrupted
    first.train()
    assert first.epoch == k

    second = make(tmp_path / "parts", experiment)
    found, problems = checkpoint.newest(
        second.checkpoints.files.resume, second.checkpoints.files.resume_epochs(), "resume"
    )
    assert found is not None
    assert found.epoch == k
    assert not problems
    second.load_state_dict(found.load())
    second.train()
    assert_same_state(whole, second)
    # Together the parts said what the whole run said, and nothing twice.
    expected, told = points(whole), [*points(first).items(), *points(second).items()]
    assert dict(told) == expected
    assert len(told) == len(expected)


@pytest.mark.parametrize("interval", [1, 3])  # of checkpoints: the state may replace one of the same epoch
@pytest.mark.parametrize(("first_epoch", "done"), [(1, 3), (2, 1), (2, 8)])
def test_the_many_first_updates_can_be_interrupted_and_go_on_exactly(
    tmp_path, monkeypatch, first_epoch, done, interval
):
    for name in ("PATIENCE_SECONDS", "PHASE_SECONDS"):
        monkeypatch.setattr(trainer_module, name, 0.0)
    experiment = tiny(max_epochs=4, wm_first_updates=10, wm_first_epoch=first_epoch, checkpoint_interval=interval)
    whole = make(tmp_path / "whole", experiment)
    whole.train()

    stop = StopRequest()
    first = make(tmp_path / "parts", experiment, stop=stop)
    assert isinstance(first.watcher, QuietWatcher)

    def shown(text: str) -> None:  # the signal arrives then, and counts after the next update
        stop.signum = 15 if text == f"epoch {first_epoch}, world model: {done} of 10 updates" else None

    first.watcher.phase = shown
    first.train()
    assert (first.epoch, first.algorithm.unfinished) == (first_epoch - 1, "world_model")
    assert first.algorithm.counters()["train/updates"] == 2 * (first_epoch - 1) + done + 1

    for _ in range(2):  # the second time nothing is done before the signal
        second = make(tmp_path / "parts", experiment)
        found, problems = checkpoint.newest(
            second.checkpoints.files.resume, second.checkpoints.files.resume_epochs(), "resume"
        )
        assert found is not None
        assert found.manifest["unfinished"] == "world_model"
        assert not problems
        second.load_state_dict(found.load())
        second.save()
    second.train()
    assert_same_state(whole, second)
    expected, told = points(whole), [*points(first).items(), *points(second).items()]
    assert dict(told) == expected
    assert len(told) == len(expected)


def test_a_long_phase_is_shown_and_kept(tmp_path, monkeypatch):
    for name in ("PATIENCE_SECONDS", "PHASE_SECONDS", "RESUMABLE_SECONDS"):
        monkeypatch.setattr(trainer_module, name, 0.0)
    trainer = make(tmp_path, tiny(max_epochs=1, wm_first_updates=4))
    saved, save = [], trainer.save
    trainer.save = lambda: saved.append(trainer.algorithm.model_learner.updates) or save()
    trainer.train()
    assert isinstance(trainer.watcher, QuietWatcher)
    assert trainer.watcher.phases == [f"epoch 1, world model: {done} of 4 updates" for done in (1, 2, 3)]
    assert isinstance(trainer.tracker, MemoryTracker)
    assert trainer.tracker.tag_values[PHASE_TAG] == ""  # it is over
    assert saved[:3] == [1, 2, 3]


def test_the_ant_resumes_exactly_too(tmp_path):
    experiment = tiny("ant", max_epochs=4)
    whole = make(tmp_path / "whole", experiment)
    whole.train()
    first = make(tmp_path / "parts", experiment, stop_epoch=2)
    first.train()
    second = make(tmp_path / "parts", experiment)
    found, _ = checkpoint.newest(second.checkpoints.files.resume, [2], "resume")
    assert found is not None
    second.load_state_dict(found.load())
    second.train()
    assert_same_state(whole, second)


def test_same_seed_same_bits_and_another_seed_others(tmp_path):
    a, b = (make(tmp_path / name, tiny(max_epochs=3)) for name in "ab")
    a.train()
    b.train()
    assert_same_state(a, b)
    other = builder.build(tiny(), 8, "cpu").algorithm
    weights = flat(other.world_model.state_dict())
    assert any(not torch.equal(w, flat(a.algorithm.world_model.state_dict())[k]) for k, w in weights.items())


def test_what_is_kept(tmp_path):
    trainer = make(tmp_path, tiny())
    trainer.train()
    files = trainer.checkpoints.files
    assert files.checkpoint_epochs() == [4, 8]
    assert files.resume_epochs() == [8]
    tracker = trainer.tracker
    assert isinstance(tracker, MemoryTracker)
    evaluated = {epoch: metrics["eval/mean_reward"] for _, epoch, _, metrics in tracker.checkpoints}
    (best,) = checkpoint.select(checkpoint.evaluated(files), "best")
    assert best.epoch == max(evaluated, key=evaluated.__getitem__)
    assert {step for step, _ in points(trainer)} == {epoch * 16 * 4 for epoch in (2, 4, 6, 8)}


def test_a_checkpoint_gives_the_policy_that_was_evaluated(tmp_path):
    trainer = make(tmp_path, tiny(normalize_observations=True))
    trainer.train()
    found = checkpoint.verify(trainer.checkpoints.files.checkpoint(8), "checkpoint")
    again = trainer.evaluator(loading.load_policy(found, "cpu"))
    assert again.metrics == found.manifest["evaluation"]


def poison(algorithm, name: str) -> None:
    with torch.no_grad():
        next(iter(getattr(algorithm, name).parameters())).fill_(float("nan"))


@pytest.mark.parametrize("part", ["world_model", "critic", "actor"])
def test_divergence_is_counted_named_and_ends_the_run(tmp_path, part):
    trainer = make(tmp_path, tiny(nonfinite_limit=1))
    original = trainer.algorithm.begin_epoch

    def begin(epoch: int) -> None:
        original(epoch)
        if epoch == 5:
            poison(trainer.algorithm, part)

    trainer.algorithm.begin_epoch = begin
    with pytest.raises(WorkFailed, match=r"diverged by epoch 6.*(actor|critic|world_model|environment)"):
        trainer.train()
    # What was saved before is intact and finite.
    found = checkpoint.verify(trainer.checkpoints.files.checkpoint(4), "checkpoint")
    assert all(
        v.isfinite().all() for v in flat(found.load()).values() if isinstance(v, torch.Tensor) and v.is_floating_point()
    )


def test_time_limit_stops_and_leaves_a_resumable_state(tmp_path, monkeypatch):
    trainer = make(tmp_path, tiny(max_epochs=1000))
    trainer.time_limit = 200.0
    clock = iter(range(0, 100_000, 10))  # every look at the clock is ten seconds later
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    trainer.train()
    assert 1 <= trainer.epoch < 10
    assert trainer.checkpoints.files.resume_epochs() == [trainer.epoch]
    assert trainer.checkpoints.files.checkpoint_epochs()[-1] == trainer.epoch


def test_what_a_point_tells_besides_losses(tmp_path):
    trainer = make(tmp_path, tiny(max_epochs=8))
    trainer.train()
    tracker = trainer.tracker
    assert isinstance(tracker, MemoryTracker)
    first, *_, last = (metrics for _, metrics in tracker.points if "train/epoch" in metrics)
    assert first["train/updates"] == 4 + 2
    assert last["train/updates"] == 4 + 7 * 2
    assert first["train/replay_transitions"] == 2 * 16 * 4
    assert last["lr/actor"] < first["lr/actor"] == pytest.approx(5e-4 - (5e-4 - 1e-5) / 8)
    assert last["perf/peak_rss_mb"] >= first["perf/peak_rss_mb"] > 50
    assert "perf/peak_gpu_memory_mb" not in last


def test_memory_of_the_loop_does_not_grow_with_epochs(tmp_path):
    """No tensor outlives its epoch: the number of living tensors is the same after 4, 8 and 10 epochs."""
    import gc

    counts = []
    trainer = make(tmp_path, tiny(max_epochs=12))
    original = trainer.algorithm.begin_epoch

    def begin(epoch: int) -> None:
        if epoch in (4, 8, 10):  # just after a point was logged
            gc.collect()
            counts.append(sum(isinstance(item, torch.Tensor) for item in gc.get_objects()))
        original(epoch)

    trainer.algorithm.begin_epoch = begin
    trainer.train()
    assert max(counts) - min(counts) <= 2, counts


def test_means_are_over_the_epochs_that_had_a_value(tmp_path):
    """The world model rests in epoch 1 (warm-up), so the point after epoch 2 is what epoch 2 alone said."""
    trainer = make(tmp_path, tiny(max_epochs=2, imagination="from_visited", warmup_epochs=2))
    said, update = [], trainer.algorithm.update_world_model
    trainer.algorithm.update_world_model = lambda: said.append(update()) or said[-1]
    trainer.train()
    assert said[0] == {}
    found = points(trainer)[2 * 16 * 4, "train/world_model_loss"]
    assert found == pytest.approx(said[1]["train/world_model_loss"].item())


def test_a_replay_without_a_sequence_for_now_is_no_crash(tmp_path):
    """After some epochs no sequence of 8 lies within one episode. The diagnostics have episodes of their own."""
    experiment = tiny(max_epochs=6, replay_capacity=4 * 10, wm_sequence_length=8, wm_batch_size=4)
    trainer = make(tmp_path, experiment)
    trainer.train()
    assert trainer.epoch == 6
    assert {"model/latent_error_16", "model/velocity_evaluations"} <= {name for _, name in points(trainer)}


def test_an_observation_latent_trains_beside_the_real_rollout_too(tmp_path):
    """Without normalisation and encoder the latent is the observation; it must not be the environment's buffer."""
    spec = tiny(max_epochs=3)
    model = spec.world_model.model_copy(update={"encoder": "observation", "encoder_units": (), "latent_dim": 2})
    trainer = make(tmp_path, spec.model_copy(update={"world_model": model}))
    trainer.train()
    assert trainer.epoch == 3


@pytest.mark.parametrize(("choice", "epochs"), [("stop", 4), ("continue", 8)])
def test_a_collapse_can_end_the_run(tmp_path, choice, epochs):
    """R 1,000 at epoch 2, then 10: with a patience of one point the collapse is established at epoch 4."""
    trainer = make(tmp_path, tiny(on_collapse=choice))
    trainer.monitor = CollapseMonitor(patience=1)
    rewards = iter([1000.0, 10.0, 10.0, 10.0])
    trainer.env.statistics = lambda: {"train/episode_reward": next(rewards), "train/episode_length": 20.0}
    trainer.train()
    assert trainer.epoch == epochs
    assert trainer.checkpoints.files.resume_epochs() == [epochs]
    tracker, watcher = trainer.tracker, trainer.watcher
    assert isinstance(tracker, MemoryTracker)
    assert isinstance(watcher, QuietWatcher)
    assert tracker.tag_values["flowmbpo.collapsed_at_epoch"] == "4"
    (warning,) = (text for text, serious in watcher.messages if serious)
    assert "R 10, peak 1000" in warning
    assert ("ends here" in warning) == (choice == "stop")
