#!/usr/bin/env bash
# joblib 1.6.0 (loky 3.6.0): workers go on after their parent was killed, and write their files.
#
# Guess: when the parent is killed its pipes close, and the workers end.
# Seen: two seconds later they are alive, and the task's file appears, three seconds after the kill.
# Behind it here: ctpatch/processes.py (_end_with).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check joblib==1.6.0 2>/dev/null

cat > "$folder/parent.py" <<'PY'
import os, sys, time
from pathlib import Path
from joblib import Parallel, delayed

def call(folder, n):
    Path(folder, f"{n}.begun").touch()
    time.sleep(3)
    Path(folder, f"{n}.done").touch()

if __name__ == "__main__":
    Parallel(2)(delayed(call)(sys.argv[1], n) for n in range(2))
PY

"$folder/venv/bin/python" "$folder/parent.py" "$folder" 2>/dev/null &
until [ -e "$folder/0.begun" ] && [ -e "$folder/1.begun" ]; do sleep 0.05; done
kill -KILL $!
wait 2>/dev/null || true
before=$(find "$folder" -name '*.done' | wc -l)
sleep 5
after=$(find "$folder" -name '*.done' | wc -l)
echo "joblib 1.6.0: files of finished tasks when the parent was killed: $before; five seconds later: $after"
[ "$before" = 0 ] && [ "$after" = 2 ]
