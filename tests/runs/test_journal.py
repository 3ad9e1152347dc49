"""The journal survives whatever a dying process leaves behind."""

import json
import threading

import pytest

from flowmbpo.runs.journal import (
    Artifact,
    Checkpoint,
    Create,
    Cursor,
    Journal,
    Metrics,
    Params,
    Status,
    Tags,
    first_entry,
    last_status,
    read_entries,
)


def written(path, offset=0):
    return [entry for entry, _ in read_entries(path, offset)]


def point(step, **metrics):
    return Metrics(1000 + step, step, metrics)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tracking" / "journal.jsonl"


def test_every_kind_comes_back_as_it_was(path):
    entries = [
        Create("key", "a/seed-0", 5, {"flowmbpo.name": "a"}, "sqlite:///x.db"),
        Params({"train.horizon": "16"}),
        Tags({"flowmbpo.host": "here"}),
        point(10, a=1.5),
        Artifact("spec.json", "", "outbox/1"),
        Checkpoint("key", "epoch-000005", "/there", 5, 10, 1010, {"eval/mean_reward": 2.0}, {}, {}, "outbox/2"),
        Status("FINISHED", 2000),
    ]
    journal = Journal(path)
    for entry in entries:
        journal.append(entry)
    assert written(path) == entries
    assert first_entry(path) == entries[0]
    assert last_status(path) == "FINISHED"


def test_what_a_later_version_adds_is_passed_over(path):
    journal = Journal(path)
    journal.append(point(1))
    with open(path, "a") as file:
        file.write('{"op":"note","text":"new"}\n{"op":"tags","tags":{"a":"b"},"by":"new"}\n{"op":"metrics","step":3}\n')
    assert written(path) == [point(1), Tags({"a": "b"})]
    assert first_entry(path) is None


def test_entries_come_back_in_order_and_from_any_offset(path):
    journal = Journal(path)
    entries = [point(step, a=step / 3, b=float("inf")) for step in range(50)]
    for entry in entries:
        journal.append(entry)
    pairs = list(read_entries(path))
    assert [entry for entry, _ in pairs] == entries
    assert written(path, pairs[29][1]) == entries[30:]
    assert pairs[-1][1] == path.stat().st_size


def test_a_line_cut_by_a_crash_is_skipped_and_does_not_harm_the_next(path):
    journal = Journal(path)
    journal.append(point(1))
    journal.append(point(2))
    journal.close()
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size - 3)
    assert written(path) == [point(1)]
    Journal(path).append(point(3))
    assert written(path) == [point(1), point(3)]


@pytest.mark.parametrize("damage", [b"\0" * 4096 + b"\n", b"\xff\xfe\n", b"[1, 2]\n", b"{broken\n", b'{"op": []}\n'])
def test_damaged_lines_are_passed_over(path, damage):
    journal = Journal(path)
    journal.append(point(1))
    with open(path, "ab") as file:
        file.write(damage)
    journal.append(point(2))
    assert written(path) == [point(1), point(2)]


def test_threads_do_not_mix_their_lines(path):
    journal = Journal(path)

    def write(thread):
        for step in range(200):
            journal.append(Tags({"thread": str(thread), "step": str(step), "text": "x" * 500}))

    threads = [threading.Thread(target=write, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entries = written(path)
    for index in range(4):
        assert [entry.tags["step"] for entry in entries if entry.tags["thread"] == str(index)] == [
            str(step) for step in range(200)
        ]


def test_the_cursor_belongs_to_one_store(tmp_path):
    file = tmp_path / "delivered.json"
    Cursor("run", "one", "mlflow-id", 120).save(file)
    assert Cursor.load(file, "run", "one") == Cursor("run", "one", "mlflow-id", 120)
    assert Cursor.load(file, "run", "another") == Cursor("run", "another")


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"offset": 3}', json.dumps({"store": "s", "mlflow_run_id": 1, "offset": "x"})]
)
def test_a_lost_cursor_starts_from_the_beginning(tmp_path, content):
    file = tmp_path / "delivered.json"
    file.write_text(content)
    assert Cursor.load(file, "run", "s") == Cursor("run", "s")
