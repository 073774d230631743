"""Draw docs/report.png and docs/comparison.png, the two pages on simulated nodules, in headless Chromium.

make ggn
ctpatch report ggn/ggn.h5 --manifest ggn/cohort/ggn.csv --out ggn/ggn.html
.venv/bin/python docs/draw_pages.py
"""

import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from browser import executable  # noqa: E402

PATIENT = "GGN011"
WIDTH, COLOURS = 1160, 128


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent / "ggn"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable(), args=["--no-sandbox"])
        page = browser.new_context(viewport={"width": WIDTH, "height": 1000}, offline=True).new_page()
        page.goto((folder / "ggn.html").as_uri())
        lesion = page.locator("li.lesion", has_text=PATIENT)
        lesion.locator("summary").click()
        save(page, lesion, 655, "report.png")
        page.goto((folder / "comparison" / "report.html").as_uri())
        save(page, page.locator("body"), 985, "comparison.png")
        browser.close()


def save(page: Page, element, height: int, name: str) -> None:  # type: ignore[no-untyped-def]
    """The upper part of an element, in few colours: small enough for a README."""
    element.scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    whole = Image.open(io.BytesIO(element.screenshot()))
    picture = whole.crop((0, 0, whole.width, min(height, whole.height))).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(HERE / name, optimize=True)


if __name__ == "__main__":
    main()
