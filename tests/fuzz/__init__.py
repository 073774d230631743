"""Fuzz targets for everything that ctpatch reads; `benchmarks/fuzz.py` runs them."""
