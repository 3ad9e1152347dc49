"""`flowmbpo ui` in a real Chromium, on a run that was really trained: runs, columns, charts of R, a playing replay."""

import pytest

from tests.browser import FLAGS, requests, start_chromium, wait
from tests.cli.ui_server import free_port, start_ui

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def browser():
    chromium = start_chromium(1400, 860, (*FLAGS, "--disable-background-networking", "--disable-component-update"))
    yield chromium
    chromium.quit()


@pytest.fixture(scope="module")
def address(browser, trained_point):  # the browser first: without one nothing needs to be served
    """Where the UI opens."""
    process = start_ui(trained_point, free_port())
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.fixture(autouse=True)
def forgetful(browser, address):
    """What one test typed into a page is gone before the next: MLflow keeps it in the browser."""
    yield
    browser.get("about:blank")
    what = {"origin": address.partition("/#")[0], "storageTypes": "local_storage"}
    browser.execute_cdp_cmd("Storage.clearDataForOrigin", what)


def shown(browser, text):
    return browser.execute_script("return document.body.innerText.includes(arguments[0])", text)


def drawn_charts(browser):
    """Texts (title, axes, legend) of the charts whose line is there."""
    return browser.execute_script(
        "return [...document.querySelectorAll('[data-testid=\"experiment-view-compare-runs-card\"]')]"
        ".filter((card) => card.querySelector('.scatterlayer path')).map((card) => card.innerText)"
    )


def run_page(address, trained_point, tab):
    (run,) = (trained_point / "runs").iterdir()
    return f"{address.partition('/runs')[0]}/runs/{run.name}/{tab}?workflowType=machine_learning"


def test_the_first_view_lists_runs_and_charts_of_reward(browser, address):
    browser.get(address)
    wait(browser, lambda b: shown(b, "point/seed-0"), 120)
    wait(browser, lambda b: shown(b, "train/episode_reward") and shown(b, "eval/mean_reward"))
    wait(browser, lambda b: any("train/episode_reward" in chart for chart in drawn_charts(b)))


def test_as_a_table_it_has_the_columns_that_matter(browser, address):
    browser.get(address)
    wait(browser, lambda b: b.find_elements("css selector", "input[name=runs-view-mode][value=TABLE]"), 120)
    browser.execute_script("document.querySelector('input[name=runs-view-mode][value=TABLE]').click()")
    wanted = {
        *("metrics.`train/episode_reward`", "metrics.`eval/mean_reward`", "metrics.`perf/env_steps_per_second`"),
        *("params.`train.horizon`", "params.`world_model.kind`", "tags.`flowmbpo.seed`"),
    }
    seen = {}

    def all_seen(browser):  # the table draws only what is in sight: look, then scroll on
        for cell in browser.find_elements("css selector", "[role=gridcell][col-id]"):
            seen[cell.get_attribute("col-id")] = cell.text
        browser.execute_script(
            "const v = document.querySelector('.ag-body-horizontal-scroll-viewport');"
            "if (v) v.scrollLeft = v.scrollLeft + v.clientWidth < v.scrollWidth ? v.scrollLeft + 200 : 0"
        )
        return wanted <= {column for column, text in seen.items() if text}

    wait(browser, all_seen, 120)
    assert shown(browser, "point/seed-0")
    assert (seen["params.`train.horizon`"], seen["params.`world_model.kind`"]) == ("16", "mlp")
    assert seen["tags.`flowmbpo.seed`"] == "0"


def test_from_the_list_to_a_runs_training_curve(browser, address):
    browser.get(address)
    wait(browser, lambda b: b.find_elements("link text", "point/seed-0"), 120)[0].click()
    wait(browser, lambda b: b.find_elements("xpath", "//*[@role='tab'][.='Model metrics']"))[0].click()
    search = wait(browser, lambda b: b.find_elements("css selector", "input[placeholder*='metric charts']"))[0]
    search.send_keys("train/episode_reward")
    wait(browser, lambda b: [chart for chart in drawn_charts(b) if "train/episode_reward" in chart])


def test_the_page_of_a_run_draws_its_reward(browser, address, trained_point):
    browser.get(run_page(address, trained_point, "model-metrics"))
    wait(browser, lambda b: shown(b, "point/seed-0") and shown(b, "mean_reward"), 120)
    wait(browser, lambda b: any("eval/mean_reward" in chart for chart in drawn_charts(b)))


def test_the_replay_plays_among_the_artifacts(browser, address, trained_point):
    browser.get(run_page(address, trained_point, "artifacts/replay.html"))
    frame = wait(browser, lambda b: b.find_elements("css selector", "iframe[sandbox]"), 120)[0]
    browser.switch_to.frame(frame)
    try:
        wait(browser, lambda b: b.execute_script("return window.replay && replay.state.webgl"))
        before = browser.execute_script("replay.play(); return replay.state.seconds")
        wait(browser, lambda b: b.execute_script("return replay.state.seconds") != before)
        assert "point/seed-0" in browser.execute_script("return document.body.innerText")
    finally:
        browser.switch_to.default_content()


def test_it_asked_this_machine_only(browser, address):
    """Of all pages above."""
    home = address.partition("/#")[0]
    asked = requests(browser)
    assert any(address.startswith(home) for address in asked)
    assert [address for address in asked if not address.startswith((home, "blob:", "data:"))] == []
