"""Hypothesis draws new examples at every run, but the same ones in CI, where a change is judged and not the dice."""

import os

from hypothesis import settings

settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
