"""The page in a browser: filters, keyboard, phone, paper, contrast and labels; and it asks nobody for anything."""

import re

import pytest
from browser import accessibility, chromium, opened, overflow

from ctpatch.cli import main


@pytest.fixture(scope="module")
def page_path(manifest, plain, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    (folder / "s.h5").write_bytes(plain)
    assert main(["report", str(folder / "s.h5"), "--manifest", str(manifest), "--out", str(folder / "p.html")]) == 0
    return folder / "p.html"


@pytest.fixture(scope="module")
def browser():
    with chromium() as launched:
        yield launched


def shown(page):
    return [" ".join(text.split()) for text in page.locator(".lesion:visible h3").all_text_contents()]


def test_lesions_are_filtered_and_sorted(browser, page_path):
    with opened(browser, page_path) as page:
        assert len(shown(page)) == 10
        page.select_option("#by-split", "train")
        page.select_option("#by-class", "benign")
        assert shown(page) == ["P00 1", "P00 2", "P04 1", "P04 2"]
        assert page.inner_text("#count") == "4 of 10 lesions"
        page.fill("#words", "p04 2")
        assert shown(page) == ["P04 2"]
        page.fill("#words", "")
        page.select_option("#by-split", "")
        page.select_option("#by-class", "")
        page.select_option("#order", "size")
        sizes = [float(size) for size in page.eval_on_selector_all(".lesion", "all => all.map(x => x.dataset.size)")]
        assert sizes == sorted(sizes)
        page.fill("#most", str(sizes[4]))
        assert len(shown(page)) == sum(size <= sizes[4] for size in sizes)
        page.fill("#most", "")
        page.select_option("#order", "findings")
        counts = page.eval_on_selector_all(".lesion", "all => all.map(x => Number(x.dataset.findings))")
        assert counts == sorted(counts, reverse=True)
        kind = page.eval_on_selector("#by-kind", "x => x.options[2].value")
        page.select_option("#by-kind", kind)
        assert len(shown(page)) == page.locator(f".badge:visible:text-is('{kind}')").count() > 0


def test_it_works_by_keyboard(browser, page_path):
    with opened(browser, page_path) as page:
        page.locator("#lesion-2 summary").focus()
        assert not page.locator("#lesion-2 .body").is_visible()
        page.keyboard.press("Enter")
        assert page.locator("#lesion-2 .body").is_visible()
        assert page.locator("#lesion-2 .views img").count() == 3
        assert page.eval_on_selector("#lesion-2 .views img", "x => x.decode().then(() => x.naturalWidth)") == 3 * 192
        page.locator("#outlines").focus()
        page.keyboard.press("Space")
        assert not page.locator("#lesion-2 .views .outline").first.is_visible()
        page.locator("a[href='#lesion-4']").first.focus()
        page.keyboard.press("Enter")
        page.locator("#lesion-4:focus-within").wait_for()  # wait_for_function would be stopped by the page's own policy
        assert page.evaluate("document.activeElement.closest('.lesion').id") == "lesion-4"
        assert page.locator("#lesion-4 .body").is_visible()
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.closest('.lesion').id") == "lesion-5"


def test_each_picture_has_its_window_its_sides_and_a_bar_that_is_seen_on_white(browser, page_path):
    with opened(browser, page_path) as page:
        page.locator("#lesion-2 summary").click()
        first = page.locator("#lesion-2 .views figure").first
        told = [text for text in first.locator("text").all_text_contents() if len(text) > 1]
        assert told == ["W 600", "L -500", "W 600", "L 100", "W 1400", "L -300"]
        assert sorted(text for text in first.locator("text").all_text_contents() if len(text) == 1) == list("ALPR")
        bars = first.locator(".bar").evaluate_all(
            "all => all.map(x => [x.getAttribute('d'), getComputedStyle(x).stroke])"
        )
        assert bars[0][0] == bars[1][0]
        assert [stroke for _, stroke in bars] == ["rgb(0, 0, 0)", "rgb(255, 255, 255)"]


def test_titles_of_wide_tables_are_seen_on_a_phone(browser, page_path):
    with opened(browser, page_path, width=320) as page:
        ends = page.eval_on_selector_all("caption span", "all => all.map(x => x.getBoundingClientRect().right)")
        assert max(ends) <= 320


def test_it_fits_a_phone_and_paper(browser, page_path):
    with opened(browser, page_path, width=320) as page:
        assert overflow(page) == 0
        page.click("#open")
        page.locator("details[open]").nth(9).wait_for(state="attached")
        assert page.locator("details[open]").count() >= 10
        assert overflow(page) == 0
        page.emulate_media(media="print")
        assert not page.locator(".controls").is_visible()
        assert len(re.findall(rb"/Type\s*/Page\b", page.pdf())) > 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_labels_and_structure(browser, page_path, scheme):
    with opened(browser, page_path, scheme=scheme, strict=False) as page:
        page.click("#open")
        assert accessibility(page) == []
