#!/usr/bin/env bash
# numba 0.68.1: the first call of a function from its cache imports scipy.linalg, and scipy 1.17.1 with it numpy's f2py.
#
# Guess: a function that lies compiled in numba's cache costs its loading, some milliseconds; SciPy is no part of it.
# Seen: the loop below adds numbers. Its first call in a new process imports scipy.linalg, where numba looks for a BLAS for
#       its matrix products; SciPy's array API layer touches every public submodule of numpy there, so that f2py's
#       Fortran parser, pydoc and unittest come too. The call takes about twice the CPU time of one without SciPy installed.
# Behind it here: a worker's start costs about a second of CPU time (docs/performance.md), 0.2 s of it this.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numba==0.68.1 numpy==2.4.6 2>/dev/null

cat > "$folder/total.py" <<'PY'
import sys
import time

import numba
import numpy as np


@numba.njit(cache=True)
def total(values):
    found = 0
    for value in values:
        found += value
    return found


numbers, before, start = np.arange(9), set(sys.modules), time.process_time()
total(numbers)
seconds, new = time.process_time() - start, set(sys.modules) - before
(cached,) = total.stats.cache_hits.values() or (0,)
asked = ("scipy.linalg", "numpy.f2py.crackfortran", "pydoc", "unittest")
print(cached, ",".join(name for name in asked if name in new) or "none", f"{seconds:.2f}")
PY

cd "$folder"
run() { "$folder/venv/bin/python" total.py; }
run > /dev/null 2>&1 || true # compiles, and fills the cache
without=$(run)
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check scipy==1.17.1 2>/dev/null
with=$(run)
echo "numba 0.68.1, first call of a cached function: (from the cache, imported, CPU s) without SciPy: $without; with: $with"
[[ $without == "1 none "* && $with == "1 scipy.linalg,numpy.f2py.crackfortran,pydoc,unittest "* ]]
