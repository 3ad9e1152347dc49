"""`run --notify`: a POST or a command says how a run ended, and nothing that goes wrong with it matters."""

import json
import signal
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from flowmbpo.cli.notify import check_target, event_of, notify, usual_target
from flowmbpo.cli.run import _notify
from flowmbpo.errors import UserError
from flowmbpo.training.result import RunResult


def result(status="FINISHED", peak=10.0, final=9.0, message=""):
    return RunResult("id", "small", 1, status, 5, 320, peak, final, None, 1.0, message=message)


@pytest.mark.parametrize(
    ("arguments", "event"),
    [
        ({}, "finished"),
        ({"final": 2.0}, "collapsed"),
        ({"peak": None, "final": None}, "finished"),
        ({"status": "KILLED"}, "stopped"),
        ({"status": "FAILED", "message": "disk full"}, "failed"),
        ({"status": "FAILED", "message": "losses are not finite"}, "not finite"),
    ],
)
def test_events(arguments, event):
    assert event_of(result(**arguments)) == event


def test_a_job_that_continues_is_requeued(monkeypatch):
    stopped = replace(result("KILLED"), exit_code=128 + signal.SIGUSR1)
    assert event_of(stopped) == "stopped"
    monkeypatch.setenv("FLOWMBPO_REQUEUES", "1")  # as cluster.task does for Slurm
    assert event_of(stopped) == "requeued"
    assert event_of(result("KILLED")) == "stopped"


def test_the_usual_target(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("FLOWMBPO_NOTIFY", raising=False)
    assert usual_target() is None
    (tmp_path / "flowmbpo").mkdir()
    file = tmp_path / "flowmbpo" / "config.toml"
    file.write_text('notify = "http://example.org/hook"\n')
    assert usual_target() == "http://example.org/hook"
    monkeypatch.setenv("FLOWMBPO_NOTIFY", "true")
    assert usual_target() == "true"
    assert not capsys.readouterr().err
    monkeypatch.setenv("FLOWMBPO_NOTIFY", "no-such-program-anywhere")
    assert usual_target() is None
    monkeypatch.delenv("FLOWMBPO_NOTIFY")
    for wrong in ("notify = 3\n", "notify", "notify = 'nothing-like-it'\n"):
        file.write_text(wrong)
        assert usual_target() is None
    assert capsys.readouterr().err.count("warning: nobody will be notified") == 4


def test_a_post():
    received = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200 if len(received) == 1 else 500)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/hook"
        assert notify(url, result()) == ""
        assert (received[0]["event"], received[0]["run_id"], received[0]["seed"]) == ("finished", "id", 1)
        assert "500" in notify(url, result())
    finally:
        server.shutdown()
        server.server_close()
    assert notify(url, result())  # nobody there: a text, no exception


def test_a_command(tmp_path):
    file = tmp_path / "told.json"
    program = f"import sys; open({str(file)!r}, 'w').write(sys.stdin.read())"
    assert notify(f'{sys.executable} -c "{program}"', result("KILLED")) == ""
    assert json.loads(file.read_text())["event"] == "stopped"
    failing = f"{sys.executable} -c 'raise SystemExit(3)'"
    assert notify(failing, result()) == f"{failing!r} ended with exit code 3"
    problem = notify(f"{sys.executable} -c 'raise SystemExit(\"no mail\")' | mail me", result())
    assert "exit code 1 (no mail); it is run without a shell" in problem


@pytest.mark.parametrize("target", ["", "no-such-program-anywhere", "http://", "'"])
def test_wrong_targets(target):
    with pytest.raises(UserError, match="--notify"):
        check_target(target)


def test_a_variable_is_no_command():
    with pytest.raises(UserError, match="without a shell, so write sh -c"):
        check_target("TO=me mail")


def test_a_failure_is_a_warning(capsys):
    _notify("false", result())
    assert capsys.readouterr().err == "warning: nobody was notified: 'false' ended with exit code 1\n"
