"""Which URIs are stores, and what is said about those that cannot be used."""

import os
import random
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from flowmbpo.errors import UserError, WorkFailed
from flowmbpo.tracking.mlflow_client import open_client
from flowmbpo.tracking.reader import open_reader
from flowmbpo.tracking.store import check_store, connect_readonly, resolve_store, schema_lock, sqlite_store


def test_the_default_lies_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = resolve_store(None)
    assert store.uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert store.artifacts == f"file://{tmp_path}/mlartifacts"


def test_relative_and_absolute_files_and_servers(tmp_path):
    assert resolve_store("sqlite:///a/b.db", tmp_path).sqlite == tmp_path / "a" / "b.db"
    assert str(resolve_store("sqlite:////x/y.db?timeout=3", tmp_path).sqlite) == "/x/y.db"
    assert resolve_store("http://127.0.0.1:5000/").uri == "http://127.0.0.1:5000"
    assert resolve_store("postgresql+psycopg2://u:p@h/db").sqlite is None


@pytest.mark.parametrize(
    "uri", ["mlruns", "file:///tmp/mlruns", "sqlite://", "sqlite:///:memory:", "http://", "ftp://x", "runs.db"]
)
def test_other_uris_are_refused_with_what_is_allowed(uri):
    with pytest.raises(UserError, match=r"sqlite:///|names no host"):
        resolve_store(uri)


def test_a_database_whose_writer_was_killed_inside_a_transaction_can_be_read(tmp_path):
    path = tmp_path / "mlflow.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE runs (name TEXT)")
        db.execute("INSERT INTO runs VALUES ('kept')")
    db.close()
    writer = (
        "import os, sqlite3, sys\n"
        "db = sqlite3.connect(sys.argv[1])\n"
        "db.execute('PRAGMA cache_size = 1')\n"  # so that half of the transaction is in the file already
        "db.execute('BEGIN')\n"
        "db.executemany('INSERT INTO runs VALUES (?)', [('lost' * 500,)] * 500)\n"
        "os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", writer, path], check=False).returncode == -9
    assert path.with_name("mlflow.db-journal").exists()
    with connect_readonly(path) as db:
        assert db.execute("SELECT name FROM runs").fetchall() == [("kept",)]
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            db.execute("DELETE FROM runs")


def test_a_password_is_not_shown():
    assert "secret" not in str(resolve_store("http://user:secret@example.org:5000"))


def test_a_missing_or_empty_file_is_no_store_yet(tmp_path):
    (tmp_path / "empty.db").touch()
    assert check_store(sqlite_store(tmp_path / "missing.db")) is False
    assert check_store(sqlite_store(tmp_path / "empty.db")) is False
    with pytest.raises(UserError, match="does not exist yet"):
        open_reader(f"sqlite:///{tmp_path}/missing.db")
    assert not (tmp_path / "missing.db").exists()


@pytest.mark.parametrize(
    "content",
    [b"this is no database" * 100, b"SQLite format 3\0" + b"\xff" * 5000, random.Random(0).randbytes(9000)],
    ids=["text", "torn", "noise"],
)
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "mlflow.db"
    path.write_bytes(content)
    with pytest.raises(WorkFailed, match=r"mlflow\.db is damaged"):
        open_reader(f"sqlite:///{path}")
    with pytest.raises(WorkFailed, match=r"mlflow\.db is damaged"):
        open_client(resolve_store(None, tmp_path), write=True)
    assert path.read_bytes() == content


def test_a_database_of_another_program_is_left_alone(tmp_path):
    with sqlite3.connect(tmp_path / "mlflow.db") as db:
        db.execute("CREATE TABLE songs (title TEXT)")
    with pytest.raises(WorkFailed, match="something else than MLflow"):
        open_client(resolve_store(None, tmp_path), write=True)


def test_another_schema_version_is_explained(store):
    with sqlite3.connect(store.sqlite) as db:
        db.execute("UPDATE alembic_version SET version_num = '000000000000'")
    with pytest.raises(WorkFailed, match=r"another MLflow version.*mlflow db upgrade"):
        open_client(store, write=True)


def test_a_schema_without_our_columns_is_explained(store):
    with sqlite3.connect(store.sqlite) as db:
        db.execute("ALTER TABLE latest_metrics RENAME COLUMN is_nan TO not_a_number")
    with pytest.raises(WorkFailed, match="another MLflow version"):
        open_reader(store).runs()


def test_a_folder_in_place_of_the_file(tmp_path):
    (tmp_path / "mlflow.db").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        open_client(resolve_store(None, tmp_path), write=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="not writable"):
        open_client(resolve_store(None, tmp_path), write=True)


@pytest.mark.parametrize("write", [False, True])
def test_a_link_that_leads_nowhere_is_no_empty_store(tmp_path, write):
    (tmp_path / "mlflow.db").symlink_to("gone/mlflow.db")
    with pytest.raises(UserError, match=r"a link to gone/mlflow\.db"):
        check_store(sqlite_store(tmp_path / "mlflow.db"), write=write)


def test_a_file_where_a_folder_is_needed(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be made"):
        open_client(resolve_store("sqlite:///file/sub/mlflow.db", tmp_path), write=True)


@pytest.mark.parametrize("tables", [("runs", "alembic_version"), ("alembic_version", "runs")])
@pytest.mark.parametrize("write", [False, True])
def test_a_schema_that_another_process_is_making_is_waited_for(tmp_path, tables, write):
    """Half of MLflow's tables are no database of another program, nor one of another version."""
    path = tmp_path / "mlflow.db"
    maker = sqlite3.connect(path, isolation_level=None)
    first, second = (f"CREATE TABLE {table} (version_num TEXT)" for table in tables)
    with ThreadPoolExecutor(1) as pool:
        with schema_lock(path):
            maker.execute(first)
            answer = pool.submit(check_store, sqlite_store(path), write=write)
            with pytest.raises(TimeoutError):
                answer.result(0.2)
            maker.execute(second)
        assert answer.result(60)
    maker.close()
