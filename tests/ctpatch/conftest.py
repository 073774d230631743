"""A small cohort of ten lesions and its store, which many tests compare builds with."""

import cohort
import pytest

from ctpatch.build.run import build
from ctpatch.recipe import BuildOptions, Recipe

SPLITS = ("train", "train", "val", "test", "train")


@pytest.fixture(scope="session")
def manifest(tmp_path_factory):
    return cohort.write_cohort(tmp_path_factory.mktemp("cohort"), SPLITS, lesions=2)


@pytest.fixture(scope="session")
def plain(manifest, tmp_path_factory):
    """The bytes of an undisturbed build."""
    out = tmp_path_factory.mktemp("plain") / "plain.h5"
    build(manifest, out, BuildOptions(Recipe(patches=3, augment=1, rgb=False)))
    return out.read_bytes()
