"""What `flowmbpo run --resume` refuses, on whole commands: one clear message, exit code 2, nothing changed."""

import json
import shutil
import signal

import pytest

from flowmbpo.tracking import code_state
from flowmbpo.training import compatibility


@pytest.fixture
def run(work):
    """A working directory with a run that was trained to epoch 3."""
    work.run("run", "small", "--epochs", 3, "--set", "critic.passes=2")
    return work


def manifest_of(run):
    return run.run_folder / "resume" / "epoch-000003" / "manifest.json"


def refused(run, *arguments, run_id=None):
    """The message of a resume that must be refused without touching the run."""
    journal = next(iter(run.folder.glob("runs/*/tracking/journal.jsonl")), None)
    before = journal.read_bytes() if journal else None
    said = run.run("run", "--resume", run.run_id if run_id is None else run_id, *arguments, code=2)
    assert "Traceback" not in said
    assert said.count("error:") == 1, said
    assert "preparing" not in said
    assert (journal.read_bytes() if journal else None) == before
    return said


def test_a_changed_registry_entry_is_shown_and_needs_a_flag(run):
    registry = run.folder / "experiments.toml"
    registry.write_text(registry.read_text().replace("wm_updates = 2", "wm_updates = 3"))
    said = refused(run)
    assert "train.wm_updates: 2 -> 3" in said
    assert "critic.passes" not in said  # `--set` made that difference, not an edit
    assert "--accept-changes" in said
    said = run.run("run", "--resume", run.run_id, "--epochs", 4, "--accept-changes")
    assert "changed since the run began: train.wm_updates: 2 -> 3" in said
    manifest = json.loads((run.run_folder / "resume" / "epoch-000004" / "manifest.json").read_text())
    assert manifest["experiment"]["train"]["wm_updates"] == 2  # a run keeps its spec
    assert manifest["overrides"] == ["critic.passes=2"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text.replace("experiments.small", "experiments.other"), "has no experiment 'small'"),
        (lambda text: text.replace("[8]", "[-8]"), "is not valid"),
    ],
)
def test_a_registry_without_the_entry(run, edit, message):
    registry = run.folder / "experiments.toml"
    registry.write_text(edit(registry.read_text()))
    assert message in refused(run)


def test_another_version_of_the_code_is_shown_and_needs_a_flag(run):
    manifest = json.loads(manifest_of(run).read_text())
    manifest["code"] |= {"flowmbpo": "0.0.1", "git commit": "abc"}
    manifest_of(run).write_text(json.dumps(manifest))
    said = refused(run)
    assert "flowmbpo: 0.0.1 -> " in said
    assert "git commit: abc -> of the tests" in said
    submit = ("submit", "--resume", run.run_id, "--cluster", "local")
    assert "git commit: abc -> of the tests" in run.run(*submit, code=2)  # before it waits in a queue
    assert not (run.folder / "runs" / "jobs").exists()
    assert "--accept-changes" in run.run(*submit, "--accept-changes", "--dry-run")
    run.run("run", "--resume", run.run_id, "--epochs", 4, "--accept-changes")
    assert run.states() == [4]


def code_of_a_wheel():
    code_state.installed = lambda: code_state.CodeState(reason="its build kept no commit")


def test_what_cannot_be_compared_is_told_and_no_obstacle(run):
    said = run.run("run", "--resume", run.run_id, "--epochs", 4, before=code_of_a_wheel)
    assert "git commit: of the tests then, unknown now (its build kept no commit)" in said
    assert "git commit: of the tests then" not in run.run("run", "--resume", run.run_id, "--epochs", 5)


def test_a_run_says_that_its_commit_is_unknown(work):
    said = work.run("run", "small", "--epochs", 1, before=code_of_a_wheel)
    assert "warning: the commit of the code is unknown: its build kept no commit" in said


def test_commits_are_compared_where_both_are_known(monkeypatch):
    monkeypatch.setattr(code_state, "installed", lambda: code_state.CodeState(commit="new"))
    then = compatibility.code_versions()
    assert compatibility.code_changes(then) == []
    assert compatibility.not_compared(then) == []
    assert compatibility.code_changes({**then, "git commit": "old"}) == ["git commit: old -> new"]
    edited = {**then, "uncommitted changes": "yes"}
    assert compatibility.not_compared(edited) == ["uncommitted changes: yes then, no now"]
    del then["git commit"], then["torch"]
    assert compatibility.code_changes(then) == []
    assert [line.split(" then")[0] for line in compatibility.not_compared(then)] == [
        "git commit: unknown",
        "torch: unknown",
    ]


def test_the_second_process_on_a_run_is_refused_before_it_builds_anything(work):
    command = work.start("run", "small")
    work.until(lambda: work.epochs_logged() >= 11 and work.states(), command)
    said = work.run("run", "--resume", work.run_id, code=2)
    assert f"run {work.run_id} is being trained by process {command.process.pid}" in said
    assert "resuming" not in said
    assert command.process.is_alive()
    command.send(signal.SIGTERM)
    assert command.wait() == 143


def test_nothing_to_resume(run):
    assert "there is no run nonsense here" in refused(run, run_id="nonsense")
    assert "is not a run id" in refused(run, run_id="../../etc")
    assert "--resume needs the id of a run" in refused(run, run_id="")
    assert "has done 3 epochs, more than --epochs 2" in refused(run, "--epochs", 2)
    assert sorted(p.name for p in (run.folder / "runs").iterdir()) == [run.run_id]
    manifest_of(run).with_name("state.json").write_text("{}")
    assert "no intact resumable state" in refused(run)
    shutil.rmtree(run.run_folder / "resume")
    assert "has no resumable state" in refused(run)


def test_a_finished_run_that_is_resumed_has_trained_no_longer(work):
    def seconds(*arguments):
        text = work.run("run", *arguments, "--epochs", 3, "--device", "cpu", "--json")
        return json.loads(text[text.index("[\n") :])[0]["wall_seconds"]

    trained = seconds("small")
    again = seconds("--resume", work.run_id)
    assert 0 < again <= trained
    assert seconds("--resume", work.run_id) == again


@pytest.mark.parametrize("change", [{"experiment": {}}, {"seed": None}, {"overrides": ["nonsense"]}])
def test_a_foreign_manifest(run, change):
    manifest = json.loads(manifest_of(run).read_text())
    manifest_of(run).write_text(json.dumps(manifest | change))
    refused(run)


def test_a_state_of_other_networks_is_a_failure_with_a_message(run):
    """Checksums that fit, contents that do not: `--accept-changes` cannot help there."""
    manifest = json.loads(manifest_of(run).read_text())
    manifest["experiment"]["critic"]["units"] = [9]
    manifest_of(run).write_text(json.dumps(manifest))
    said = run.run("run", "--resume", run.run_id, "--accept-changes", code=1)
    assert "does not fit" in said
    assert run.status(run.run_id) == "FAILED"


@pytest.fixture
def recorded(work, new_workplace):
    """Files of recorded transitions: one in the working directory, and one to put in its place."""
    source = new_workplace("source")
    source.run("run", "small", "--epochs", 1)
    for name, episodes in (("data", 4), ("other", 5)):
        source.run("record", source.run_id, "--episodes", episodes, "--out", work.folder / f"{name}.safetensors")
    return work.folder / "data.safetensors", work.folder / "other.safetensors"


def pretraining(updates):
    return "--set", f'train.pretrain={{data="data.safetensors",updates={updates}}}'


def test_pretraining_goes_on_only_with_the_transitions_that_it_began_with(work, recorded):
    data, other = recorded
    begun = data.read_bytes()
    command = work.start("run", "small", *pretraining(1_000_000))
    for content in (other.read_bytes(), begun):
        work.until(lambda command=command: "pretrain: " in command.text, command)
        command.send(signal.SIGINT)
        assert command.wait() == 130, command.text
        assert work.states() == [0]
        data.write_bytes(content)
        if content != begun:
            assert "train.pretrain.data: data.safetensors holds other bytes" in refused(work)
            data.write_bytes(begun)
            command = work.start("run", "--resume", work.run_id)


def test_the_transitions_are_not_needed_any_more_when_pretraining_is_over(work, recorded):
    work.run("run", "small", "--epochs", 1, *pretraining(2))
    recorded[0].unlink()
    work.run("run", "--resume", work.run_id, "--epochs", 2)
    assert work.states() == [2]
