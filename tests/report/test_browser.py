"""The page in a browser: the system's Chromium, headless, with a user directory of its own.

Skipped where there is no Chromium; `.ci/run` brings one.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, Page, sync_playwright

from subfour.report.page import write_report
from subfour.report.study_page import write_study_page
from tests.report.study_rows import rows_of_every_kind

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this system")

ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)

PHONE = {"width": 390, "height": 844}


FIGURES = {"run": 10, "study": 1}


@pytest.fixture(scope="module", params=FIGURES)
def report(request: pytest.FixtureRequest, run: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a finished run beside two others; the page of a study with rows of every kind."""
    out = tmp_path_factory.mktemp("report") / f"{request.param}.html"
    if request.param == "run":
        write_report([run("finished"), run("none"), run("pact")], out)
    else:
        write_study_page(Path("mine.toml"), rows_of_every_kind(out.parent), out)
    return out


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    """A browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("user"), executable_path=CHROMIUM, headless=True, args=ARGUMENTS
        )
        yield browser
        browser.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """An empty tab."""
    tab = context.new_page()
    yield tab
    tab.close()


def test_nothing_goes_wrong_and_no_request_leaves_the_file(page: Page, report: Path):
    messages: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(report.as_uri())
    page.wait_for_load_state("networkidle")
    assert messages == []
    assert {url for url in requests if not url.startswith("data:")} == {report.as_uri()}


def test_every_figure_is_drawn(page: Page, report: Path):
    page.goto(report.as_uri())
    figures = page.locator("figure")
    assert figures.count() == FIGURES[report.stem]
    for index in range(figures.count()):
        drawing = figures.nth(index).locator("svg")
        box = drawing.bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) > 100
        assert drawing.locator("path").count() > 5
        assert figures.nth(index).get_by_role("img").get_attribute("aria-label")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, {"width": 1280, "height": 900}], ids=["phone", "desk"])
def test_axe_finds_nothing(page: Page, report: Path, size: dict[str, int], scheme: str):
    page.set_viewport_size(size)
    page.emulate_media(color_scheme=scheme)
    page.goto(report.as_uri())
    page.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_a_phone_never_scrolls_sideways(page: Page, report: Path):
    page.set_viewport_size(PHONE)
    page.goto(report.as_uri())
    page.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


def test_figures_follow_the_page_into_the_dark(page: Page, report: Path):
    colours = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.goto(report.as_uri())
        colours.append(page.evaluate("getComputedStyle(document.querySelector('figure svg text')).fill"))
    assert len(set(colours)) == 2


def test_the_keyboard_reaches_the_report_first(page: Page, report: Path):
    page.goto(report.as_uri())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#main"
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: url.endswith("#main"))  # the browser goes there when it gets to it
