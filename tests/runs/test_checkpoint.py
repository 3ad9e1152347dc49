"""Checkpoints: round trips to the bit, atomic folders, and files that are broken, foreign or malicious."""

import json
import pickle
import struct
import subprocess
from pathlib import Path

import pytest
import torch

from flowmbpo.errors import UserError, WorkFailed
from flowmbpo.runs import checkpoint, state_tree, tensors
from flowmbpo.runs.files import BrokenFile
from flowmbpo.runs.layout import RunFiles, epoch_folder

ABOUT = {"epoch": 3, "env_steps": 300}


def a_state() -> dict:
    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(5, 4)).sum().backward()
    optimizer.step()
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "odd": {
            "empty": torch.empty(0, 3),
            "half": torch.randn(3).bfloat16(),
            "flags": torch.tensor([True, False]),
        },
        "counters": {"epoch": 3, "rate": 0.1, "nothing": None, "pair": (1, 2.5)},
        "generator": torch.Generator().manual_seed(5).get_state(),
    }


def assert_same(a, b) -> None:
    assert type(a) is type(b) or {type(a).__name__, type(b).__name__} == {"OrderedDict", "dict"}
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


def saved(tmp_path: Path, **about) -> Path:
    return checkpoint.save(tmp_path / epoch_folder(3), a_state(), kind="checkpoint", about=ABOUT | about)


def test_round_trip_is_exact(tmp_path):
    state = a_state()
    folder = checkpoint.save(tmp_path / "epoch-000003", state, kind="checkpoint", about=ABOUT)
    found = checkpoint.verify(folder, "checkpoint")
    assert (found.epoch, found.env_steps) == (3, 300)
    assert_same(state, found.load())


def test_optimizer_state_continues_from_disk(tmp_path):
    state = a_state()
    folder = checkpoint.save(tmp_path / "epoch-000003", state, kind="checkpoint", about=ABOUT)
    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.Adam(model.parameters())
    loaded = checkpoint.verify(folder, "checkpoint").load()
    model.load_state_dict(loaded["model"])
    optimizer.load_state_dict(loaded["optimizer"])
    assert_same(state["optimizer"], optimizer.state_dict())


def test_the_library_reads_our_safetensors(tmp_path):
    from safetensors.torch import load_file

    some = {"a": torch.randn(7, 3), "b": torch.arange(5), "scalar": torch.tensor(2.0)}
    tensors.write_tensors(tmp_path / "x.safetensors", some)
    assert_same(some, load_file(tmp_path / "x.safetensors"))


def test_a_state_with_an_unknown_object_is_refused():
    with pytest.raises(TypeError, match="inner/thing"):
        state_tree.split({"inner": {"thing": object()}})


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
def test_truncated_files_are_named(tmp_path, name):
    folder = saved(tmp_path)
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(BrokenFile, match=name):
        checkpoint.verify(folder, "checkpoint")


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json"])
def test_one_flipped_bit_is_found(tmp_path, name):
    folder = saved(tmp_path)
    flip(folder / name, (folder / name).stat().st_size - 7)
    with pytest.raises(BrokenFile, match="checksum"):
        checkpoint.verify(folder, "checkpoint")


class Bomb:
    def __reduce__(self):
        return (subprocess.call, (["touch", "executed"],))


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
def test_a_pickle_is_never_executed(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    folder = saved(tmp_path)
    (folder / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(BrokenFile):
        checkpoint.verify(folder, "checkpoint")
    with pytest.raises(BrokenFile):
        checkpoint.Checkpoint(folder, ABOUT).load() if name != "manifest.json" else checkpoint.verify(
            folder, "checkpoint"
        )
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "header",
    [
        {"x": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}},
        {"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 4]}},
        {"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
        {"../../etc/x": {"dtype": "NOPE", "shape": [1], "data_offsets": [0, 4]}},
    ],
)
def test_lying_tensor_headers_are_refused(tmp_path, header):
    encoded = json.dumps(header).encode()
    path = tmp_path / "tensors.safetensors"
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + b"\0" * 16)
    with pytest.raises(BrokenFile):
        tensors.read_tensors(path)


def test_a_header_length_of_terabytes_is_refused(tmp_path):
    path = tmp_path / "tensors.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 42) + b"{}")
    with pytest.raises(BrokenFile):
        tensors.read_tensors(path)


def test_names_in_the_manifest_cannot_leave_the_folder(tmp_path):
    folder = saved(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["../outside"] = manifest["files"].pop("state.json")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BrokenFile, match="unexpected files"):
        checkpoint.verify(folder, "checkpoint")


def test_another_format_or_kind_is_named(tmp_path):
    folder = saved(tmp_path)
    with pytest.raises(BrokenFile, match="not a 'resume'"):
        checkpoint.verify(folder, "resume")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(BrokenFile, match="format 99"):
        checkpoint.verify(folder, "checkpoint")


def test_a_crash_while_writing_leaves_no_folder(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    before = saved(tmp_path)
    monkeypatch.setattr(tensors, "write_tensors", fail)
    with pytest.raises(WorkFailed, match="No space left"):
        checkpoint.save(tmp_path / epoch_folder(4), a_state(), kind="checkpoint", about=ABOUT)
    assert [entry.name for entry in tmp_path.iterdir()] == [before.name]
    checkpoint.verify(before, "checkpoint")


def test_newest_passes_over_a_broken_one_and_says_why(tmp_path):
    for epoch in (1, 2):
        checkpoint.save(
            tmp_path / epoch_folder(epoch),
            a_state(),
            kind="resume",
            about={"epoch": epoch, "env_steps": epoch},
        )
    flip(tmp_path / epoch_folder(2) / "tensors.safetensors", -1)
    found, problems = checkpoint.newest(tmp_path, [1, 2], "resume")
    assert found is not None
    assert found.epoch == 1
    assert "epoch-000002" in problems[0]


def test_retention_keeps_interval_best_and_last(tmp_path):
    files = RunFiles(tmp_path)
    for epoch in (3, 5, 7, 10, 12, 13):
        for parent in (files.checkpoints, files.resume):
            (parent / epoch_folder(epoch)).mkdir(parents=True)
    for epoch, reward in ((3, 9.0), (5, 1.0), (7, 123.0), (10, float("nan")), (12, 123.0)):
        manifest = {"evaluation": {"eval/mean_reward": reward}}
        (files.checkpoint(epoch) / "manifest.json").write_text(json.dumps(manifest))
    checkpoint.keep(files, interval=5, written=12)  # a killed run had gone further
    assert files.checkpoint_epochs() == [5, 7, 10, 12, 13]
    checkpoint.keep(files, interval=5, written=13)
    assert files.checkpoint_epochs() == [5, 7, 10, 13]
    assert files.resume_epochs() == [13]
    for which, epochs in (("best", [7]), ("last", [13]), ("10", [10]), ("all", [5, 7, 10, 13])):
        assert [found.epoch for found in checkpoint.select(checkpoint.evaluated(files), which)] == epochs


def test_where_nothing_was_evaluated_the_last_is_the_best():
    candidates = [checkpoint.Evaluated(epoch, None) for epoch in (9, 4)]
    assert checkpoint.select(candidates, "best") == candidates[:1]
    with pytest.raises(UserError, match="no checkpoint yet"):
        checkpoint.select([], "best")
    with pytest.raises(UserError, match=r"worst: the run .* best, last, all, 4, 9"):
        checkpoint.select(candidates, "worst")


@pytest.mark.parametrize("run_id", ["", "../x", "a/b", "a\\b", "..", "x" * 200, "a..b"])
def test_run_ids_cannot_leave_the_folder(run_id):
    with pytest.raises(UserError):
        RunFiles.of(run_id)
