#!/usr/bin/env bash
# joblib 1.6.0: when a worker is killed, answers that were finished before are lost, if the consumer had not fetched them.
#
# Guess: `Parallel(return_as="generator")` gives the finished answers in order and raises at the call that was killed.
# Seen: see the last line: the exception comes at the next fetch, however many finished answers wait.
# Behind it here: ctpatch/build/workers.py (in_workers): whoever was handed out and has no answer is made again.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check joblib==1.6.0 2>/dev/null

cat > "$folder/lost.py" <<'PY'
import os, signal, sys, time
from joblib import Parallel, delayed
from joblib.externals.loky import BrokenProcessPool

def call(n):
    if n == 8:
        time.sleep(1)  # all before it are finished
        os.kill(os.getpid(), signal.SIGKILL)
    return n

if __name__ == "__main__":
    fetched = []
    try:
        for answer in Parallel(2, return_as="generator", batch_size=1)(delayed(call)(n) for n in range(12)):
            fetched.append(answer)
            time.sleep(float(sys.argv[1]))
    except BrokenProcessPool:
        print(len(fetched))
PY

fast=$("$folder/venv/bin/python" "$folder/lost.py" 0 2>/dev/null) slow=$("$folder/venv/bin/python" "$folder/lost.py" 0.5 2>/dev/null)
echo "joblib 1.6.0: of 8 answers finished before a worker was killed, a fast consumer got $fast, a slow one $slow"
[ "$fast" = 8 ] && [ "$slow" -lt 8 ]
