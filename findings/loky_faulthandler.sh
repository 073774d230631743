#!/usr/bin/env bash
# joblib 1.6.0 (loky 3.6.0): PYTHONFAULTHANDLER=0 does not keep workers from printing where each thread was at a crash.
#
# Guess: as loky's source says, "never enable faulthandler in the loky workers by setting PYTHONFAULTHANDLER=0".
# Seen: it is enabled then, too: loky keeps away, but Python itself enables it for any text that is not empty. Only the
#       empty variable leaves it off; it may be set as late as in the initializer.
# Behind it here: ctpatch/processes.py (_end_with).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check joblib==1.6.0 2>/dev/null

cat > "$folder/is_enabled.py" <<'PY'
import faulthandler, os, sys
from joblib.externals.loky import get_reusable_executor

def empty():
    os.environ["PYTHONFAULTHANDLER"] = ""

if __name__ == "__main__":
    executor = get_reusable_executor(1, initializer=empty if len(sys.argv) > 1 else None)
    print(executor.submit(faulthandler.is_enabled).result())
PY

run() { "$folder/venv/bin/python" "$folder/is_enabled.py" "$@"; }
unset=$(env -u PYTHONFAULTHANDLER "$folder/venv/bin/python" "$folder/is_enabled.py") zero=$(PYTHONFAULTHANDLER=0 run)
empty=$(PYTHONFAULTHANDLER= run) late=$(env -u PYTHONFAULTHANDLER "$folder/venv/bin/python" "$folder/is_enabled.py" late)
echo "joblib 1.6.0: faulthandler in a worker: unset $unset, 0 $zero, empty $empty, empty in the initializer $late"
[ "$unset $zero $empty $late" = "True True False False" ]
