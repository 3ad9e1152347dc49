"""The journal survives whatever a dying process leaves behind."""

import json
import threading

import pytest

from flowmbpo.runs.journal import Cursor, CursorFile, Journal, read_records


def written(path, offset=0):
    return [record for record, _ in read_records(path, offset)]


def test_records_come_back_in_order_and_from_any_offset(tmp_path):
    journal = Journal(tmp_path)
    records = [{"op": "metrics", "step": step, "metrics": {"a": step / 3, "b": float("inf")}} for step in range(50)]
    for record in records:
        journal.append(record)
    pairs = list(read_records(journal.path))
    assert [record for record, _ in pairs] == records
    assert written(journal.path, pairs[29][1]) == records[30:]
    assert pairs[-1][1] == journal.size


def test_a_line_cut_by_a_crash_is_skipped_and_does_not_harm_the_next(tmp_path):
    journal = Journal(tmp_path)
    journal.append({"n": 1})
    journal.append({"n": 2})
    journal.close()
    with open(journal.path, "r+b") as file:
        file.truncate(journal.path.stat().st_size - 3)
    assert written(journal.path) == [{"n": 1}]
    again = Journal(tmp_path)
    again.append({"n": 3})
    assert written(journal.path) == [{"n": 1}, {"n": 3}]


@pytest.mark.parametrize("damage", [b"\0" * 4096 + b"\n", b"\xff\xfe\n", b"[1, 2]\n", b"{broken\n"])
def test_damaged_lines_are_passed_over(tmp_path, damage):
    journal = Journal(tmp_path)
    journal.append({"n": 1})
    with open(journal.path, "ab") as file:
        file.write(damage)
    journal.append({"n": 2})
    assert written(journal.path) == [{"n": 1}, {"n": 2}]


def test_threads_do_not_mix_their_lines(tmp_path):
    journal = Journal(tmp_path)

    def write(thread):
        for n in range(200):
            journal.append({"thread": thread, "n": n, "text": "x" * 500})

    threads = [threading.Thread(target=write, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = written(journal.path)
    for index in range(4):
        assert [record["n"] for record in records if record["thread"] == index] == list(range(200))


def test_the_cursor_belongs_to_one_store(tmp_path):
    file = CursorFile(tmp_path)
    file.save(Cursor("run", "one", "mlflow-id", 120))
    assert file.load("run", "one") == Cursor("run", "one", "mlflow-id", 120)
    assert file.load("run", "another") == Cursor("run", "another")


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"offset": 3}', json.dumps({"store": "s", "mlflow_run_id": 1, "offset": "x"})]
)
def test_a_lost_cursor_starts_from_the_beginning(tmp_path, content):
    file = CursorFile(tmp_path)
    file.path.write_text(content)
    assert file.load("run", "s") == Cursor("run", "s")
