"""The page: complete, self-contained, escaped, well-formed, written all at once."""

import re
from html.parser import HTMLParser

import pytest

from flowmbpo.errors import UserError
from flowmbpo.reports.report import SUFFIXES, build_report, write_report
from flowmbpo.runs.files import check_output
from flowmbpo.spec.registry import load_registry

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Outline(HTMLParser):
    """Checks that elements nest, and collects ids, links, tags and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.links += [value for name, value in attrs if name in ("href", "src", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text += data


def outline(page: str) -> Outline:
    found = Outline()
    found.feed(page)
    assert found.open == []
    return found


@pytest.fixture
def page(store, registry):
    for seed in range(2):
        diagnostics = {"train/reward_correlation": [0.1, 0.9, 0.95], "model/latent_error_16": [0.1, 0.05, 0.02]}
        tags = {
            "flowmbpo.git_commit": "0123456789abcdef",
            "flowmbpo.git_dirty": "true",
            "flowmbpo.command": "flowmbpo run 5M-baseline --seeds 0,1",
        }
        common = {"metrics": diagnostics, "tags": tags, "params": {"world_model.latent_dim": "512"}}
        store.run("5M-baseline", seed, [10.0, 900.0, 1300.0], evaluations={2: 1234.0}, **common)
        params = {"world_model.latent_dim": "768"}
        store.run("48M-flow-v2", seed, [10.0, 1900.0, 2300.0], evaluations={2: 2345.0}, params=params)
    store.run("48M-flow-v2", 2, [10.0], status="FAILED")
    hours = {"48M-flow-v2": (36.0, 17.5), "unknown": (1.0, 1.0)}
    return build_report([], reader=store.uri, registry=load_registry(registry), gpu_hours=hours)


def test_the_gpu_hours_of_what_is_reported_stand_there(page):
    assert "GPU hours asked for" in page
    assert "17.5" in page
    assert "unknown" not in page.partition("GPU hours asked for")[2].partition("</table>")[0]


def test_everything_that_was_promised_is_there(page):
    text = outline(page).text
    for words in (
        "Does the flow help?",  # the question of the group
        "48M-flow-v2 was above 5M-baseline in 1.00 of the pairs",
        "1,234",
        "2,345",
        "failed: 48M-flow-v2/seed-2",
        "Published results",
        "9,546",
        "0123456789ab with uncommitted changes",
        "flowmbpo run 5M-baseline --seeds 0,1",
        "Correlation of predicted and real reward",
        "after 16 open-loop steps",
        "world_model.latent_dim",  # a key that differs
        "the small model",
    ):
        assert words in text, words
    assert page.count("<svg") == 2 + 2 + 2 + 2  # question, curves, checkpoints, world model


def test_the_page_needs_no_network_and_runs_nothing(page):
    found = outline(page)
    assert not found.tags & {"script", "link", "img", "iframe", "object"}
    assert all(link.startswith("#") for link in found.links)
    assert {link[1:] for link in found.links} <= set(found.ids)
    assert len(found.ids) == len(set(found.ids))
    assert not re.search(r"@import|url\((?!#)", page)
    assert "default-src 'none'" in page


def test_it_is_made_for_dark_screens_phones_print_and_screen_readers(page):
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    assert 'name="viewport"' in page
    assert page.count('role="img"') == page.count("<svg")
    assert '<html lang="en">' in page
    assert 'scope="col"' in page


def test_what_comes_from_the_store_is_escaped(store, registry):
    evil = '<script>alert("x")</script>'
    store.run(evil, 0, [1.0, 2.0], tags={"flowmbpo.command": f"run '{evil}'", "flowmbpo.git_commit": "</table>" + evil})
    page = build_report([], reader=store.uri, registry=load_registry(registry))
    assert "script" not in outline(page).tags
    assert evil in outline(page).text


def test_a_report_on_chosen_experiments(store, registry):
    store.run("5M-baseline", 0, [1.0])
    store.run("other", 0, [1.0])
    page = build_report(["5M-baseline"], reader=store.uri, registry=load_registry(registry))
    assert "other" not in re.findall(r'<th scope="row">([^<]*)', page)
    with pytest.raises(UserError):
        build_report(["nonsense"], reader=store.uri, registry=load_registry(registry))


def test_runs_without_any_curve_still_make_a_page(store, registry):
    store.run("5M-baseline", 0, [])
    page = build_report([], reader=store.uri, registry=load_registry(registry))
    assert "No training curve was logged" in outline(page).text


def test_nothing_to_report_is_the_users_mistake(store, registry):
    store.run("5M-baseline", 0, [1.0], status="FAILED")
    with pytest.raises(UserError, match="no finished runs"):
        build_report([], reader=store.uri, registry=load_registry(registry))


def test_the_file_is_replaced_all_at_once(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("before")
    write_report("after", path)
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


def test_targets_that_cannot_be_written(tmp_path):
    for path in (tmp_path / "report.pdf", tmp_path / "no" / "report.html", tmp_path):
        with pytest.raises(UserError):
            check_output(path, SUFFIXES)
