#!/usr/bin/env bash
# joblib 1.6.0 (loky 3.6.0): a run that is closed early, with more calls handed out than loky's queue takes, ends loky's
# manager thread with a KeyError and leaves a semaphore behind.
#
# Guess: closing the generator of `Parallel(return_as="generator")` cancels what waits and ends the workers, quietly.
# Seen: with pre_dispatch="4*n_jobs" and two workers the thread ExecutorManagerThread dies of `KeyError: 7` (its traceback
#       comes on stderr) each time; with "2*n_jobs", the default, never. The queue takes 2 * n_jobs + 1 calls: what is
#       handed out beyond that is still numbered in a list whose entries the kill has removed.
# Behind it here: ctpatch/build/workers.py (AHEAD) and ctpatch/processes.py (Processes.end).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check joblib==1.6.0 2>/dev/null

cat > "$folder/close.py" <<'PY'
import sys, time, warnings
from joblib import Parallel, delayed

warnings.simplefilter("ignore")
calls = (delayed(time.sleep)(0.3) for _ in range(20))
answers = Parallel(2, return_as="generator", batch_size=1, pre_dispatch=sys.argv[1])(calls)
next(answers)
answers.close()
PY

errors() { for _ in 1 2 3; do "$folder/venv/bin/python" "$folder/close.py" "$1" 2>&1; done | grep -c '^KeyError' || true; }
two=$(errors "2*n_jobs") four=$(errors "4*n_jobs")
echo "joblib 1.6.0, three early closes each: KeyError $two times with pre_dispatch=2*n_jobs, $four times with 4*n_jobs"
[ "$two" = 0 ] && [ "$four" = 3 ]
