"""Values that are not finite, a policy that collapses, broken and hostile checkpoints: on whole commands."""

import json
import pickle
import shutil
from pathlib import Path

import pytest

from flowmbpo.runs import checkpoint
from flowmbpo.runs.layout import RunFiles


def reward_is_lost_after_epoch_11():
    import torch

    from flowmbpo.envs.pointmass import PointMassEnv

    original = PointMassEnv.step
    steps = 0

    def step(self, actions):
        nonlocal steps
        result = original(self, actions)
        steps += self.num_envs == 4  # the evaluation has two environments
        return result._replace(reward=result.reward * torch.nan) if steps > 11 * 16 else result

    PointMassEnv.step = step


@pytest.mark.parametrize(("log_interval", "noticed"), [(1, 12), (1000, 15)])  # the latter before an evaluation
def test_too_many_bad_values_fail_the_run_and_name_where_they_arose(work, log_interval, noticed):
    arguments = ["run", "small", "--epochs", 40, "--set", "train.nonfinite_limit=3"]
    arguments += ["--set", f"train.log_interval={log_interval}"]
    said = work.run(*arguments, code=1, before=reward_is_lost_after_epoch_11)
    assert f"diverged by epoch {noticed}" in said
    assert "environment" in said
    assert "3 are allowed" in said
    assert work.status(work.run_id) == "FAILED"
    files = RunFiles(work.run_folder)
    state, problems = checkpoint.newest(files.resume, files.resume_epochs(), "resume")
    assert state is not None
    assert not problems
    assert state.epoch == 10
    history = work.histories(work.run_id).get("train/nonfinite_updates", [])
    assert all(value == 0 for _, value in history)
    work.run("run", "--resume", work.run_id, "--epochs", 12)  # the cause is gone: it goes on from before
    assert work.status(work.run_id) == "FINISHED"


class Bomb:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


def test_eval_of_broken_checkpoints_executes_nothing_and_does_the_rest(work):
    work.run("run", "small", "--epochs", 50, "--set", "evaluation.interval=10")
    files = RunFiles(work.run_folder)
    assert files.checkpoint_epochs() == [10, 20, 30, 40, 50]
    trap = work.folder / "executed"
    bomb = pickle.dumps(Bomb(trap))
    (files.checkpoint(10) / "tensors.safetensors").write_bytes(bomb)
    (files.checkpoint(10) / "state.json").write_bytes(bomb)
    tensors = files.checkpoint(20) / "tensors.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-7])
    tensors = files.checkpoint(30) / "tensors.safetensors"
    content = bytearray(tensors.read_bytes())
    content[-5] ^= 1
    tensors.write_bytes(content)
    shutil.rmtree(files.checkpoint(40))
    shutil.rmtree(work.database.with_name("mlartifacts"))

    said = work.run("eval", "small", "--checkpoint", "all", "--episodes", 2, "--json", code=1)
    rows = {row["epoch"]: row for row in json.loads(said[said.index("[\n") :])}
    assert [epoch for epoch in sorted(rows) if rows[epoch]["error"] is None] == [50]
    for epoch, reason in ((10, "size"), (20, "truncated"), (30, "checksum"), (40, "neither")):
        assert reason in rows[epoch]["error"], rows[epoch]
        assert said.count(f"epoch-{epoch:06d}: ") >= 1
    assert not trap.exists()


@pytest.mark.slow
def test_eight_commands_into_one_new_store(work):
    """Nobody has made the store yet; each of the eight becomes a finished run with all its points."""
    from mlflow import MlflowClient

    work.database.unlink()
    commands = [work.start("run", "small", "--seed", seed, "--epochs", 5) for seed in range(8)]
    assert [command.wait() for command in commands] == [0] * 8, "\n".join(command.text for command in commands)
    client = MlflowClient(tracking_uri=f"sqlite:///{work.database}")
    (experiment,) = client.search_experiments(filter_string="name = 'flowmbpo'")
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.tags["flowmbpo.seed"] for run in runs) == [str(seed) for seed in range(8)]
    for run in runs:
        assert run.info.status == "FINISHED"
        history = work.histories(run.info.run_id)
        assert history["train/epoch"] == [(64 * epoch, float(epoch)) for epoch in range(1, 6)]
        assert len(history["train/world_model_loss"]) == 5
        assert [step for step, _ in history["eval/mean_reward"]] == [320]
        times = client.get_metric_history(run.info.run_id, "perf/tracking_seconds")
        assert len(times) == 5
        assert all(point.value >= 0.0 for point in times)
