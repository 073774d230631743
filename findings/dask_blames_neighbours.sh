#!/usr/bin/env bash
# distributed 2026.8.0: a task that only ran beside the one that killed its worker is given up together with it.
#
# Guess: KilledWorker comes for the task that ended its workers' processes.
# Seen: a death counts against every task that the worker was at work on. Of a task that kills its worker after 0.5 s and one
#       that sleeps for 2 s in the worker's other thread, both end in KilledWorker; on its own the second is done.
# Behind it here: ctpatch/build/cluster.py (_alone): who is given up is made again when nobody else is at work.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check distributed==2026.8.0 2>/dev/null

cat > "$folder/neighbours.py" <<'PY'
import os, signal, time

import distributed


def killer():
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


def harmless():
    time.sleep(2)
    return "done"


if __name__ == "__main__":
    cluster = distributed.LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None)
    client = distributed.Client(cluster)
    tasks = [client.submit(function, pure=False) for function in (killer, harmless)]
    print(*(type(task.exception(timeout=120)).__name__ for task in tasks))
    print(client.submit(harmless, pure=False).result(), flush=True)
    os._exit(0)
PY

told=$("$folder/venv/bin/python" "$folder/neighbours.py" 2>/dev/null | paste -sd' ')
echo "distributed 2026.8.0: a task that kills its worker, the one beside it, and that on its own: $told"
[ "$told" = "KilledWorker KilledWorker done" ]
