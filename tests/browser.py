"""A headless Chromium that looks at a page as people do; tests skip, saying why, where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def executable() -> str | None:
    """A Chromium on the PATH, or None where playwright's own is to be used."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def chromium() -> Iterator:
    """A browser, or a skipped test."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        try:
            browser = driver.chromium.launch(executable_path=executable(), args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(
                f"no Chromium: install it, or run `playwright install chromium` ({error.message.splitlines()[0]})"
            )
        yield browser
        browser.close()


@contextmanager
def opened(browser, path: Path, *, width: int = 1280, scheme: str = "light", strict: bool = True) -> Iterator:
    """The page in a window `width` pixels wide; in the end it must have asked for nothing and complained of nothing.

    `strict=False` lifts its Content-Security-Policy, which keeps test tools out too.
    """
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, bypass_csp=not strict, offline=True
    )
    page, said = context.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: request.url.startswith(("data:", "file:")) or said.append(request.url))
    page.goto(path.as_uri())
    yield page
    assert said == []
    context.close()


def accessibility(page) -> list[str]:
    """What axe-core finds wrong: rule and the first element."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    found = axe.Axe().run(page).response["violations"]
    return [f"{rule['id']}: {rule['nodes'][0]['html'][:200]}" for rule in found]


def overflow(page) -> int:
    """By how many pixels the page is wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
