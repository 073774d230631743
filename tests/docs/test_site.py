"""The site builds without a warning, asks nothing of the network and fits a phone; the README is short."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import browser
import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "srcset", "image": "href"}
"""What a browser fetches by itself, and the attribute that says from where."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install '.[docs]'")
    out = tmp_path_factory.mktemp("site")
    done = strict_build(ROOT / "mkdocs.yml", out)
    assert done.returncode == 0, done.stderr
    return out


def strict_build(config: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Neither quiet nor verbose: then mkdocs is not strict (findings/mkdocs_strict_quiet.sh)."""
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--config-file",
        str(config),
        "--site-dir",
        str(out),
    ]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


class Fetched(HTMLParser):
    """The addresses that a page makes a browser fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in LOADED and given.get("rel") != "canonical":
            self.addresses.append(given.get(LOADED[tag]) or "")


def test_a_page_for_each_markdown_file(site: Path) -> None:
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    assert {path.relative_to(site) for path in site.rglob("*.html")} - {Path("404.html")} == pages
    assert not list(site.rglob("*.py"))


def test_a_broken_anchor_fails_the_build(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install '.[docs]'")
    validation = re.search(r"^validation:\n(  .*\n)+", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert validation
    (tmp_path / "mkdocs.yml").write_text(f"site_name: x\n{validation[0]}", encoding="utf-8")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# Home\n\n[a](#home)\n", encoding="utf-8")
    assert strict_build(tmp_path / "mkdocs.yml", tmp_path / "site").returncode == 0
    (tmp_path / "docs" / "index.md").write_text("# Home\n\n[a](#nowhere)\n", encoding="utf-8")
    assert strict_build(tmp_path / "mkdocs.yml", tmp_path / "site").returncode == 1


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        page = Fetched()
        page.feed(path.read_text(encoding="utf-8"))
        assert len(page.addresses) > 3
        assert [address for address in page.addresses if re.match(r"(https?:)?//", address)] == []
    for path in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//", path.read_text(encoding="utf-8")), path


def test_pages_fit_a_phone_and_ask_for_nothing(site: Path) -> None:
    with browser.chromium() as chromium:
        context = chromium.new_context(viewport={"width": 320, "height": 640}, offline=True)
        page, asked = context.new_page(), []
        page.on("request", lambda request: asked.append(request.url))
        for name in ("errors", "api"):
            page.goto((site / f"{name}.html").as_uri())
            assert browser.overflow(page) <= 0, name
        assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 120
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if not target.startswith("http")]
    assert len(targets) > 10
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_every_picture_says_what_it_shows() -> None:
    for path in [README, *(ROOT / "docs").rglob("*.md")]:
        assert "![](" not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize("name", ["report.png", "comparison.png"])
def test_the_pictures_of_the_readme(name: str) -> None:
    assert f"](docs/{name})" in README.read_text(encoding="utf-8")
    assert 20_000 < (ROOT / "docs" / name).stat().st_size < 300_000
