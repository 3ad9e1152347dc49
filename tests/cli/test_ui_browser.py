"""`flowmbpo ui` in a real Chromium, on a run that was really trained: runs, charts of R, and a replay that plays."""

import os
import socket
import subprocess
import sys

import pytest
from browser import start_chromium, wait
from point import train_point

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def browser():
    chromium = start_chromium(1400, 860)
    yield chromium
    chromium.quit()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    train_point(folder)
    return folder


@pytest.fixture(scope="module")
def address(browser, trained):  # the browser first: without one nothing needs to be served
    """Where the UI opens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    process = subprocess.Popen(
        [sys.executable, "-m", "flowmbpo", "ui", "--port", str(port)],
        cwd=trained,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(timeout=60)


def shown(browser, text):
    return browser.execute_script("return document.body.innerText.includes(arguments[0])", text)


def drawn_charts(browser):
    """Texts (title, axes, legend) of the charts whose line is there."""
    return browser.execute_script(
        "return [...document.querySelectorAll('[data-testid=\"experiment-view-compare-runs-card\"]')]"
        ".filter((card) => card.querySelector('.scatterlayer path')).map((card) => card.innerText)"
    )


def run_page(address, trained, tab):
    (run,) = (trained / "runs").iterdir()
    return f"{address.partition('/runs')[0]}/runs/{run.name}/{tab}?workflowType=machine_learning"


def test_the_first_view_lists_runs_and_charts_of_reward(browser, address):
    browser.get(address)
    wait(browser, lambda b: shown(b, "point/seed-0"), 120)
    wait(browser, lambda b: shown(b, "train/episode_reward") and shown(b, "eval/mean_reward"))
    wait(browser, lambda b: any("train/episode_reward" in chart for chart in drawn_charts(b)))


def test_the_page_of_a_run_draws_its_reward(browser, address, trained):
    browser.get(run_page(address, trained, "model-metrics"))
    wait(browser, lambda b: shown(b, "point/seed-0") and shown(b, "mean_reward"), 120)
    wait(browser, lambda b: any("eval/mean_reward" in chart for chart in drawn_charts(b)))


def test_the_replay_plays_among_the_artifacts(browser, address, trained):
    browser.get(run_page(address, trained, "artifacts/replay.html"))
    frame = wait(browser, lambda b: b.find_elements("css selector", "iframe[sandbox]"), 120)[0]
    browser.switch_to.frame(frame)
    try:
        wait(browser, lambda b: b.execute_script("return window.replay && replay.state.webgl"))
        before = browser.execute_script("replay.play(); return replay.state.seconds")
        wait(browser, lambda b: b.execute_script("return replay.state.seconds") != before)
        assert "point/seed-0" in browser.execute_script("return document.body.innerText")
    finally:
        browser.switch_to.default_content()
