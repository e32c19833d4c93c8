"""What the report's tests share: a made-up run, its page, and a browser."""

import shutil

import pytest
from made_ledger import made_ledger
from playwright.sync_api import sync_playwright

from analysis import report
from tests.analysis.report.pages import PATIENCE


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    return made_ledger(tmp_path_factory.mktemp("runs") / "made", 60)


@pytest.fixture(scope="session")
def written(made):
    return report.write(made)


@pytest.fixture(scope="module")  # while Playwright runs, no other library of this process can use asyncio
def chromium():
    found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    if not any(found):
        pytest.skip("no Chromium is installed here")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=next(filter(None, found)), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium):
    """Open a page and collect what it complains of, which must be nothing."""
    faults, contexts = [], []

    def opened(address, **options):
        contexts.append(chromium.new_context(viewport={"width": 1280, "height": 900}, **options))
        contexts[-1].set_default_timeout(PATIENCE)
        tab = contexts[-1].new_page()
        tab.on("pageerror", lambda error: faults.append(str(error)))
        tab.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        tab.goto(address if isinstance(address, str) else address.resolve().as_uri())
        tab.wait_for_selector("html[data-ready]", state="attached")
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert faults == []
