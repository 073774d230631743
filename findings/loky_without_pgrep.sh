#!/usr/bin/env bash
# joblib 1.6.0 (loky 3.6.0): where neither psutil nor the program pgrep is installed (slim containers), loky cannot end a
# worker process at all.
#
# Guess: loky ends its workers by itself; what it calls pgrep for, a worker's own processes, is left alone without it, as
#        the comment beside its fallback says ("we fall back to only killing the main process").
# Seen: the fallback calls a method that loky's own processes do not have: AttributeError, and the worker lives on. In an
#       executor that happens in the manager thread, after which `shutdown(kill_workers=True)`, and a death of a worker,
#       are waited for without end (seen, not shown here). With psutil installed the worker ends.
# Behind it here: psutil is a dependency of ctpatch; ctpatch/processes.py.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check joblib==1.6.0 2>/dev/null

cat > "$folder/end.py" <<'PY'
import os, signal, time, warnings
from contextlib import suppress
from joblib.externals.loky import ProcessPoolExecutor
from joblib.externals.loky.backend.utils import kill_process_tree

warnings.simplefilter("ignore")  # loky's, which has the missing pgrep's traceback and recommends psutil
os.environ["PATH"] = ""
pool = ProcessPoolExecutor(1)
pid = pool.submit(os.getpid).result()
try:
    kill_process_tree(pool._processes[pid])
    said = "ended"
except AttributeError as error:
    said = f"lives on, {error}"
try:
    time.sleep(0.5)
    print(said, "and answers" if said != "ended" and pool.submit(os.getpid).result() == pid else "")
finally:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    os._exit(0)  # without loky's own end, which would wait for the worker
PY

ask() { "$folder/venv/bin/python" -u "$folder/end.py" 2>/dev/null; }
bare=$(ask)
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check psutil==7.2.2 2>/dev/null
with=$(ask)
echo "joblib 1.6.0 without pgrep: worker $bare"
echo "the same with psutil 7.2.2: worker $with"
[[ $bare == *"no attribute 'kill'"*"and answers"* && $with == "ended"* ]]
