"""Calls in worker processes: in order, streamed, a death named, nothing lost, and nothing alive afterwards."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path

import joblib
import pytest
from calls import (
    BOUNDED_S,
    alive,
    awaited,
    crash,
    fail,
    grow,
    made,
    pid_of,
    say_at_exit,
    say_at_exit_with_a_child,
    square,
)
from joblib.externals.loky import process_executor

from ctpatch import processes
from ctpatch.build.engine import LocalRunner
from ctpatch.build.workers import AHEAD
from ctpatch.processes import OwnProcess, Processes, WorkerDied

TOOLS = str(Path(__file__).resolve().parents[1])


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_answers_come_in_order(jobs):
    calls = ((n, "", 0, 0.05 * (n % 3)) for n in range(12))
    assert list(LocalRunner(jobs).run(square, calls)) == [n * n for n in range(12)]


def test_no_calls():
    assert list(LocalRunner(2).run(square, [])) == []


def test_no_more_processes_than_calls_or_cores():
    assert LocalRunner.sized(8, 3).jobs == 3
    assert LocalRunner.sized(2, 3).jobs == 2
    assert LocalRunner.sized(-1, 1000).jobs == joblib.cpu_count()


def test_one_job_is_this_process_and_more_are_others():
    assert set(LocalRunner(1).run(pid_of, ((n,) for n in range(3)))) == {os.getpid()}
    others = set(LocalRunner(2).run(pid_of, ((n,) for n in range(12))))
    assert len(others) == 2
    assert os.getpid() not in others
    assert not any(map(alive, others))


def test_calls_are_handed_out_as_they_are_made():
    taken = []

    def calls():
        for n in range(100):
            taken.append(n)
            yield n, "", 0, 0.5

    answers = LocalRunner(2).run(square, calls())
    assert next(answers) == 0
    assert len(taken) <= 2 * AHEAD + 4
    answers.close()


def test_a_run_that_is_closed_while_loky_has_yet_to_pass_a_call_on_ends_without_a_word(monkeypatch):
    """Its thread would look for what the closing took away: a KeyError, which is printed (pytest fails by it)."""
    thread = process_executor._ExecutorManagerThread
    take = thread.process_result_item

    def take_and_dwell(self, item):
        take(self, item)  # joblib hands out another call meanwhile
        deadline = time.monotonic() + 0.5
        while not self.executor_flags.shutdown and time.monotonic() < deadline:
            time.sleep(0.001)

    monkeypatch.setattr(thread, "process_result_item", take_and_dwell)
    with closing(LocalRunner(2).run(square, ((n, "", 0, 0.05) for n in range(100)))) as answers:
        assert next(answers) == 0


def test_an_exception_ends_the_run(tmp_path):
    answers = LocalRunner(2).run(fail, ((n,) for n in range(50)))
    with pytest.raises(ValueError, match="number 3"):
        list(answers)


@pytest.mark.parametrize(("jobs", "pause"), [(2, 0.0), (3, 0.1)])
def test_a_death_takes_nothing_with_it(tmp_path, jobs, pause):
    """One call ends its process once, another each time; a slow consumer has answers waiting when they do."""
    deaths = {4: 1, 9: 99}
    calls = ((n, str(tmp_path), deaths.get(n, 0), 0.01) for n in range(16))
    answers = []
    for answer in LocalRunner(jobs).run(square, calls):
        answers.append(answer)
        time.sleep(pause)
    blamed = [n for n, answer in enumerate(answers) if isinstance(answer, WorkerDied)]
    assert blamed == [9]
    assert str(answers[9]) == "killed by signal 9"
    assert [answer for n, answer in enumerate(answers) if n != 9] == [n * n for n in range(16) if n != 9]
    assert 2 <= len([name for name in made(tmp_path) if name.startswith("9.")]) <= 3


def test_every_call_ends_its_process(tmp_path):
    start = time.monotonic()
    answers = list(LocalRunner(2).run(square, ((n, str(tmp_path), 99) for n in range(3))))
    assert [type(answer) for answer in answers] == [WorkerDied] * 3
    assert time.monotonic() - start < BOUNDED_S


def test_a_closed_run_is_at_an_end(tmp_path):
    answers = LocalRunner(2).run(square, ((n, str(tmp_path), 0, 0.2) for n in range(50)))
    next(answers)
    answers.close()
    pids = {int(name.rpartition(".")[2]) for name in made(tmp_path)}
    before = made(tmp_path)
    assert not any(map(alive, pids))
    time.sleep(0.5)
    assert made(tmp_path) == before


def test_two_runs_at_once_and_the_caller_s_own_loop():
    """joblib's own backend has one pool for all loops of a process, and they wait for each other for good."""
    answers, numbers = {}, [(n, "", 0, 0.05) for n in range(20)]

    def run(name):
        answers[name] = list(LocalRunner(2).run(square, numbers))

    mine = joblib.Parallel(2, return_as="generator")(joblib.delayed(abs)(n) for n in range(40))
    assert next(mine) == 0
    threads = [threading.Thread(target=run, args=(name,), daemon=True) for name in "ab"]
    for thread in threads:
        thread.start()
        time.sleep(0.3)
    for thread in threads:
        thread.join(30)
    assert answers == {name: [n * n for n in range(20)] for name in "ab"}
    assert list(mine) == list(range(1, 40))


def test_a_crash_prints_nothing(capfd):
    answers = list(LocalRunner(2).run(crash, ((n,) for n in range(6))))
    assert str(answers.pop(3)) == "killed by signal 11"
    assert answers == [0, 1, 2, 4, 5]
    assert capfd.readouterr() == ("", "")


GROWN = """
import sys
sys.path.append(sys.argv[1])
from calls import grow
from ctpatch.build.engine import LocalRunner
print(*LocalRunner(2).run(grow, ((n,) for n in range(5))))
"""


def test_a_worker_that_has_grown_is_replaced_without_a_word():
    command = [sys.executable, "-W", "error", "-c", GROWN, TOOLS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BOUNDED_S)
    assert (done.stdout, done.stderr) == ("0 1 2 3 4\n", "")


DEAF = """
import sys
sys.path.append(sys.argv[1])
from calls import blocked
from ctpatch.build.engine import LocalRunner
from ctpatch.processes import OwnProcess
print(*LocalRunner(2).run(blocked, ((n,) for n in range(4))), OwnProcess()(blocked, 0), blocked(0))
"""


def test_workers_are_deaf_to_an_interrupt_from_the_beginning():
    """In a fresh process, for the first one that is started there makes a difference."""
    command = [sys.executable, "-c", DEAF, TOOLS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BOUNDED_S, check=True)
    assert done.stdout == f"{' '.join([str(sorted(map(int, processes.STOPS)))] * 5)} []\n"


PARENT = """
import sys
sys.path.append(sys.argv[1])
from calls import square
from ctpatch.build.engine import LocalRunner
for answer in LocalRunner(2).run(square, ((n, sys.argv[2], 0, 0.3) for n in range(100))):
    print(answer, flush=True)
"""


def started(tmp_path):
    (tmp_path / "run.py").write_text(PARENT)
    command = [sys.executable, str(tmp_path / "run.py"), TOOLS, str(tmp_path / "made")]
    (tmp_path / "made").mkdir()
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "0\n"
    return parent


def test_workers_end_with_a_killed_parent(tmp_path):
    """The script has no `if __name__ == "__main__"`, too: workers must not run it again."""
    parent = started(tmp_path)
    parent.kill()
    parent.communicate()
    time.sleep(0.3)
    before = made(tmp_path / "made")
    time.sleep(1.7)
    assert made(tmp_path / "made") == before
    assert not any(alive(int(name.rpartition(".")[2])) for name in before)


def test_interrupted_run_leaves_nobody(tmp_path):
    parent = started(tmp_path)
    parent.send_signal(signal.SIGINT)
    _, err = parent.communicate(timeout=BOUNDED_S)
    assert parent.returncode != 0
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert err.count("Traceback") == 1
    assert not any(alive(int(name.rpartition(".")[2])) for name in made(tmp_path / "made"))


@pytest.mark.parametrize(("call", "left"), [(say_at_exit, 0), (say_at_exit_with_a_child, 2)])
def test_workers_with_a_decoder_leave_when_all_is_done(call, left, tmp_path):
    """Its semaphores are given back then: else Python warned of them at the end of each build of JPEG images."""
    assert list(LocalRunner(2).run(call, ((n, str(tmp_path), 0) for n in range(4)))) == [0, 1, 2, 3]
    assert len(made(tmp_path)) == left


def test_workers_that_do_not_leave_are_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "_LEAVE_S", 0.3)
    start = time.monotonic()
    calls = ((n, str(tmp_path), BOUNDED_S) for n in range(2))
    assert list(LocalRunner(2).run(say_at_exit_with_a_child, calls)) == [0, 1]
    assert time.monotonic() - start < BOUNDED_S / 2
    assert not made(tmp_path)


def test_what_lies_in_the_working_folder_is_not_run(tmp_path):
    """loky and Python start processes by `-m` and `-c`, which look there first."""
    (tmp_path / "here").mkdir()
    for name in ("random", "queue", "signal", "tempfile"):
        (tmp_path / "here" / f"{name}.py").write_text("import os; os.mkdir('taken')")
    script = tmp_path / "script.py"
    script.write_text(f"""
import sys
sys.path.append({TOOLS!r})
from calls import square
from ctpatch.build.engine import LocalRunner
if __name__ == "__main__":
    print(*LocalRunner(2).run(square, ((n,) for n in range(4))))
""")
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    told = subprocess.run(
        [sys.executable, script], cwd=tmp_path / "here", env=environment, capture_output=True, text=True, check=False
    )
    assert (told.stdout, told.stderr) == ("0 1 4 9\n", "")
    assert not (tmp_path / "here" / "taken").exists()


def test_own_process_names_its_death_and_is_started_again():
    process = OwnProcess()
    first = process(pid_of, 0)
    assert process(pid_of, 0) == first != os.getpid()
    for number in (signal.SIGSEGV, signal.SIGABRT):
        with pytest.raises(WorkerDied, match=f"killed by signal {number:d}"):
            process(os.kill, process(os.getpid), number)
    with pytest.raises(WorkerDied, match="exit status 3"):
        process(os._exit, 3)
    with pytest.raises(ValueError, match="number 3"):
        process(fail, 3)
    last = process(pid_of, 0)
    process.close()
    assert not alive(last)


def test_a_process_ends_where_there_is_no_pgrep(monkeypatch):
    """As in slim containers; loky 3.6.0 alone then ends none, and whoever waits for that waits for good."""
    monkeypatch.setenv("PATH", "")
    with closing(OwnProcess()) as process:
        with pytest.raises(WorkerDied, match="exit status 3"):
            process(os._exit, 3)
        last = process(pid_of, 0)
    assert not alive(last)


def test_a_death_while_it_was_idle_is_no_call_s():
    with closing(OwnProcess()) as process:
        os.kill(process(pid_of, 0), signal.SIGKILL)
        awaited(lambda: process._pool._pool._flags.broken)
        assert process(square, 3) == 9


@pytest.mark.parametrize("left", ["idle", "grown"])
def test_the_death_of_one_that_has_replaced_another_is_told(left, tmp_path):
    """loky 3.6.0 starts it while it waits for those that it knew before."""
    with closing(OwnProcess(idle_s=0.2 if left == "idle" else None)) as process:
        first = process(pid_of, 0)
        if left == "grown":
            process(grow, 0)
        awaited(lambda: not alive(first))
        with pytest.raises(WorkerDied, match="killed by signal 9"):
            process(square, 1, str(tmp_path), 1)
        assert process(square, 2) == 4


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_call_of_one_that_is_closed_by_another_thread_is_not_waited_for(moment, monkeypatch):
    """As a Dask worker's thread is whose run ends: just before loky takes the call, or while it is made."""
    process, submit = OwnProcess(), Processes.submit

    def closed_meanwhile(self, function, *arguments):
        if moment == "after":
            answer = submit(self, function, *arguments)
        closer = threading.Thread(target=process.close)
        closer.start()
        closer.join()
        return submit(self, function, *arguments) if moment == "before" else answer

    assert process(square, 2) == 4
    monkeypatch.setattr(Processes, "submit", closed_meanwhile)
    with pytest.raises(WorkerDied, match="stopped"):
        process(square, 3, "", 0, 60)
    monkeypatch.undo()
    assert process(square, 3) == 9
    process.close()


def test_a_call_that_loky_has_lost_is_not_waited_for_once_its_process_is_closed(monkeypatch):
    process = OwnProcess()
    monkeypatch.setattr(Processes, "submit", lambda self, function, *arguments: Future())
    threading.Timer(0.1, process.close).start()
    with pytest.raises(WorkerDied, match="stopped"):
        process(square, 3)


def test_own_process_serves_a_thread():
    process, answers = OwnProcess(), []
    thread = threading.Thread(target=lambda: answers.append(process(square, 7)))
    thread.start()
    thread.join()
    assert process(square, 8) == 64  # though the thread that started it has ended
    process.close()
    assert answers == [49]
