"""Whatever stands in --tracking-uri: one message before training, or training that keeps what cannot be delivered."""

from __future__ import annotations

import pytest

from flowmbpo.errors import UserError
from flowmbpo.tracking import delivery
from flowmbpo.tracking.mlflow_writer import MlflowWriter
from flowmbpo.tracking.run_tracker import start_run
from flowmbpo.tracking.store import check_database, resolve_store
from tests.tracking.mlflow_server import wait_for

WRONG = {
    "postgresql+nonsense://u:secret@127.0.0.1:1/db": "malformed",
    "postgresql+psycopg2://u:secret@127.0.0.1:1/db": "driver",
    "postgresql://u:secret@127.0.0.1:port/db": "malformed",
    "mysql://": "driver",
    "http://[::1": "malformed",
    "http://127.0.0.1:99999": "malformed",
    "http://127.0.0.1:x": "malformed",
    "http://u:secret@127.0.0.1:x": "malformed",
    "http://": "no host",
    "http://exa mple": "no host",
    "ftp://u:secret@h": "not supported",
}


@pytest.mark.parametrize("uri", WRONG)
def test_a_uri_that_can_never_work_is_one_message_without_its_password(uri, about, tmp_path):
    with pytest.raises(UserError, match=WRONG[uri]) as caught:
        check_database(resolve_store(uri))
    assert "secret" not in str(caught.value)
    if uri.startswith(("postgresql+psycopg2", "postgresql+nonsense")):
        with pytest.raises(UserError, match=WRONG[uri]):
            start_run(resolve_store(uri), about, tmp_path / "runs")
        assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("where", ["find_or_create", "write", "alive"])
def test_what_a_library_throws_ends_neither_delivery_nor_training(store, about, tmp_path, monkeypatch, where):
    monkeypatch.setattr(delivery, "DELIVERY_SECONDS", 0.02)
    monkeypatch.setattr(delivery, "HEARTBEAT_SECONDS", 0.02)
    monkeypatch.setattr(delivery, "_BACKOFF", (0.02,))
    real, thrown = getattr(MlflowWriter, where), []

    def broken(*arguments, **options):
        if len(thrown) < 3:
            thrown.append(1)
            raise ZeroDivisionError("of some library")
        return real(*arguments, **options)

    monkeypatch.setattr(MlflowWriter, where, broken)
    with start_run(store, about, tmp_path / "runs") as tracker:
        tracker.log({"train/epoch": 1.0}, step=1)
        wait_for(lambda: len(thrown) == 3)
        tracker.log({"train/epoch": 2.0}, step=2)
    assert not tracker.delivery.undelivered
