"""Hypothesis draws new examples at every run, but the same ones in CI, where a change is judged and not the dice.

`pytest --hypothesis-profile=long` draws many more of the properties of a build and of histories of builds.
"""

import os
import signal

from hypothesis import settings

settings.register_profile("ci", derandomize=True)
settings.register_profile("long", max_examples=4000)
if os.environ.get("CI"):
    settings.load_profile("ci")

# started in the background of a script a process ignores Ctrl-C, and so would those that the tests interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)
