#!/usr/bin/env bash
# distributed 2026.8.0: the scheduler unpickles what is submitted, so it needs the function's package.
#
# Guess: the scheduler passes tasks on as bytes, and only workers and client need the code.
# Seen: with a scheduler that cannot import the function's module, and a worker that can, `submit` ends in a RuntimeError on
#       the deserialization of the task graph. `submit(pickle.loads, bytes)`, whose bytes name the function, works.
# Behind it here: ctpatch/build/cluster.py (_submit).
set -euo pipefail
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check distributed==2026.8.0 2>/dev/null

mkdir "$folder/code"
echo 'def double(n): return 2 * n' > "$folder/code/mine.py"
cat > "$folder/ask.py" <<'PY'
import pickle, sys

import distributed
import mine


class Call:
    def __reduce__(self):
        return mine.double, (21,)


client = distributed.Client(scheduler_file=sys.argv[1])
for task in ((mine.double, 21), (pickle.loads, pickle.dumps(Call()))):
    try:
        print(client.submit(*task, pure=False).result(timeout=30))
    except Exception as error:
        print(type(error).__name__)
PY

cd "$folder"
"$folder/venv/bin/dask" scheduler --host 127.0.0.1 --port 0 --no-dashboard --scheduler-file "$folder/s.json" 2>/dev/null &
PYTHONPATH="$folder/code" "$folder/venv/bin/dask" worker --scheduler-file "$folder/s.json" --no-dashboard --no-nanny 2>/dev/null &
until [ -s "$folder/s.json" ]; do sleep 0.1; done
told=$(PYTHONPATH="$folder/code" timeout 120 "$folder/venv/bin/python" "$folder/ask.py" "$folder/s.json" 2>/dev/null | paste -sd' ')
echo "distributed 2026.8.0, scheduler without the function's module: submit(function), submit(pickle.loads, bytes): $told"
[ "$told" = "RuntimeError 42" ]
