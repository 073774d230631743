#!/usr/bin/env bash
# joblib 1.6.0 over distributed 2026.8.0: after a task's fourth death the generator waits for ever.
#
# Guess: `Parallel(return_as="generator")` with the backend "dask" raises KilledWorker when the scheduler gives a task up,
#        as `Client.submit(...).result()` does.
# Seen: a task that is killed once is made again, and the generator goes on. One that kills each worker it meets is given up
#       after its fourth death; the answers before it come, and then nothing, no exception either: after 30 s it still waits.
# Behind it here: ctpatch/build/cluster.py: futures of Dask's own client.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check joblib==1.6.0 distributed==2026.8.0 2>/dev/null

cat > "$folder/deaths.py" <<'PY'
import os, signal, sys, threading, time
from pathlib import Path

import distributed
from joblib import Parallel, delayed, parallel_config

LIMIT_S = 30


def call(n, folder, deaths):
    before = len(list(Path(folder).glob(f"death*")))
    if n == 3 and before < deaths:
        Path(folder, f"death{before}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def main(folder, deaths):
    Path(folder).mkdir()
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    client, told, ended = distributed.Client(cluster), [], threading.Event()

    def generator():
        try:
            with parallel_config(backend="dask"):
                for answer in Parallel(return_as="generator", batch_size=1)(delayed(call)(n, folder, deaths) for n in range(6)):
                    told.append(answer)
            told.append("end")
        except Exception as error:
            told.append(type(error).__name__)
        ended.set()

    def future():
        try:
            return client.submit(call, 3, folder + "-future", 99, pure=False).result(timeout=LIMIT_S)
        except Exception as error:
            return type(error).__name__

    threading.Thread(target=generator, daemon=True).start()
    if not ended.wait(LIMIT_S + 30 * (deaths < 4)):
        told.append("waits")
    died = len(list(Path(folder).iterdir()))
    if deaths > 3:
        Path(folder + "-future").mkdir()
        told.append(future())
    print(died, *told, flush=True)
    os._exit(0)  # nothing here can be closed in order


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
PY

once=$("$folder/venv/bin/python" "$folder/deaths.py" "$folder/once" 1 2>/dev/null)
often=$("$folder/venv/bin/python" "$folder/deaths.py" "$folder/often" 99 2>/dev/null)
echo "joblib 1.6.0, distributed 2026.8.0: deaths, then the generator's answers, of a task that dies once: $once"
echo "of one that always dies: $often (the last word is a plain future's)"
[ "$once" = "1 0 1 2 3 4 5 end" ] && [ "$often" = "4 0 1 2 waits KilledWorker" ]
