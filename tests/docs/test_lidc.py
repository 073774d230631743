"""docs/lidc.md: what its table says of the collection's oddities is what `scan` says; its commands on real readings."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import archive
import pages
import pytest

import ctpatch
from ctpatch.scan import scan

PAGE = pages.ROOT / "docs" / "lidc.md"
REAL = Path(__file__).parents[3] / "shared" / "data" / "lidc"


def test_the_page_and_the_messages_of_its_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive.write_archive(tmp_path)
    notes = " ".join(scan(tmp_path / "LIDC-IDRI").notes)
    table = PAGE.read_text(encoding="utf-8").partition("## What is odd in it")[2]
    messages = re.findall(r"^\|[^|]+\|[^|]+\| `([^|]+)` \|", table, flags=re.MULTILINE)
    assert len(messages) == 6
    for message in messages:
        assert re.search(re.escape(message).replace("…", ".*?"), notes), message
    monkeypatch.chdir(tmp_path)
    page = pages.Page(PAGE).run()
    assert sorted([*page.ran, *page.shown]) == [line for line, _ in page.blocks()]
    with ctpatch.open_store("lidc.h5") as store:
        assert list(store.lesions["label"]) == ["benign", "malignant", "malignant", "benign", "malignant", "malignant"]


@pytest.mark.skipif(not REAL.is_dir(), reason="the shared real data are not here")
def test_the_page_on_real_readings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for patient in ("LIDC-IDRI-0001", "LIDC-IDRI-0003"):
        shutil.copytree(REAL / patient, tmp_path / "LIDC-IDRI" / patient)
    monkeypatch.chdir(tmp_path)
    page = pages.Page(PAGE).run()
    assert len(page.ran) == 3
    with ctpatch.open_store("lidc.h5") as store:
        assert list(store.lesions["patient_id"]) == ["LIDC-IDRI-0001", "LIDC-IDRI-0003"]
        assert list(store.lesions["label"]) == ["malignant", "malignant"]
        assert (store.lesions["n_readers"] == 4).all()
