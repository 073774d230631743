"""Hypothesis draws new examples at every run, but the same ones in CI, where a change is judged and not the dice.

`pytest --hypothesis-profile=long` draws many more of the properties of a build and of histories of builds.
"""

import gc
import os
import signal

import pytest
from hypothesis import settings

gc.disable()  # until everything is imported
settings.register_profile("ci", derandomize=True)
settings.register_profile("long", max_examples=4000)
if os.environ.get("CI"):
    settings.load_profile("ci")

# started in the background of a script a process ignores Ctrl-C, and so would those that the tests interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish():
    """What the imports left is not looked through again and again, nor copied into every forked child for that."""
    gc.collect()
    gc.freeze()
    gc.enable()
