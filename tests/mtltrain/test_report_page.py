"""The page in a browser: phone, paper, contrast and labels, keyboard; and it asks nobody for anything."""

import re

import pytest
from browser import accessibility, chromium, opened, overflow
from toystore import run_folder, write_store

from ctpatch.store import open_store
from mtltrain import figures
from mtltrain.cohort import read_cohort
from mtltrain.report import write_report


@pytest.fixture(scope="module")
def page_path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    path = write_store(folder / "toy.h5", {"train": 4, "val": 4, "test": 24})
    with open_store(path) as store, pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "RESAMPLES", 50)
        cohort = read_cohort(store)
        run_folder(folder, cohort)
        return write_report(folder, cohort)


@pytest.fixture(scope="module")
def browser():
    with chromium() as launched:
        yield launched


def test_everything_is_there_and_is_seen(browser, page_path):
    with opened(browser, page_path) as page:
        titles = page.locator("h2").all_text_contents()
        for title in ("Confusion tables, test lesions", "ROC curves", "Calibration", "Decision curve", "Training"):
            assert title in titles
        assert "What MTL+RI got most wrong and most right" in titles
        widths = page.eval_on_selector_all(
            ".plot img, details[open] .cases img",
            "all => Promise.all(all.map(x => { x.loading = 'eager'; return x.decode().then(() => x.naturalWidth) }))",
        )
        assert len(widths) == 4 + page.locator("details[open] .cases li").count() > 4
        assert min(widths) > 100


def test_it_works_by_keyboard(browser, page_path):
    with opened(browser, page_path) as page:
        best = page.locator("details", has_text="Most right")
        best.locator("summary").focus()
        assert not best.locator(".cases").is_visible()
        page.keyboard.press("Enter")
        assert best.locator(".cases").is_visible()


def test_it_fits_a_phone_and_paper(browser, page_path):
    with opened(browser, page_path, width=320) as page:
        assert overflow(page) == 0
        page.emulate_media(media="print")
        assert len(re.findall(rb"/Type\s*/Page\b", page.pdf())) > 2


def test_on_paper_no_word_of_a_table_is_broken(browser, page_path):
    """A4 within its margins is 688 pixels wide."""
    with opened(browser, page_path, width=688) as page:
        page.emulate_media(media="print")
        cells = "section .scroll table:not(.wrap) :is(th, td)"
        assert set(page.eval_on_selector_all(cells, "x => x.map(c => getComputedStyle(c).overflowWrap)")) == {"normal"}
        assert overflow(page) == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_labels_and_structure(browser, page_path, scheme):
    with opened(browser, page_path, scheme=scheme, strict=False) as page:
        assert accessibility(page) == []
