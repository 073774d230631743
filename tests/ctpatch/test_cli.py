"""The command line: exit statuses, one line per error, nothing on stdout but results, never a traceback."""

import errno
import fcntl
import os
import pty
import re
import shlex
import signal
import struct
import subprocess
import sys
import termios

import cohort
import pytest

import ctpatch.build.one_lesion
from ctpatch import __version__, open_store
from ctpatch.cli import main

SMALL = ["--patches", "2", "--augment", "0", "--no-rgb"]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return cohort.write_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture
def spoilt(tmp_path):
    return cohort.write_cohort(tmp_path / "in", columns=lambda i: {"roi": "tumour"} if i == 1 else {})


def build(manifest, out, *more):
    return main(["build", "--manifest", str(manifest), "--out", str(out), *SMALL, *more])


def one_error(capfd, pattern):
    out, err = capfd.readouterr()
    *_, last = err.splitlines()
    assert re.fullmatch(rf"ctpatch: {pattern}", last), err
    assert "Traceback" not in err
    return out


def test_build_info_verify(manifest, tmp_path, capfd):
    out = tmp_path / "o.h5"
    assert build(manifest, out) == 0
    text, err = capfd.readouterr()
    assert text.splitlines()[-1] == f"{out}: 4 lesions, patches: train 4, val 1, test 1"
    assert err.splitlines() == [f"build: {n} of 4" for n in (1, 2, 3, 4)]
    assert main(["info", str(out)]) == 0
    assert "train  2 patients, 2 lesions (benign 1, malignant 1), 4 patches, HU only" in capfd.readouterr().out
    assert main(["verify", str(out)]) == 0
    assert capfd.readouterr() == (f"{out}: whole and unaltered\n", "")


def test_options_reach_the_recipe(manifest, tmp_path):
    numbers = {"--seed": 7, "--rotate": 10, "--shift": 1.5, "--spacing": 0.75, "--lidc-consensus": 0.6, "--jobs": -1}
    more = ["--keep-uids", *(str(word) for pair in numbers.items() for word in pair)]
    assert build(manifest, tmp_path / "o.h5", *more) == 0
    with open_store(tmp_path / "o.h5") as store:
        recipe = store.recipe
        chosen = ("seed", "patches", "augment", "rotate_deg", "shift_mm", "spacing_mm", "lidc_consensus", "rgb")
        assert [recipe[name] for name in chosen] == [7, 2, 0, 10, 1.5, 0.75, 0.6, False]
        assert store.lesions.series[0].startswith("1.2.826.")
        assert store.split("train").rgb is None


def test_rgb_is_kept_unless_told_otherwise(manifest, tmp_path):
    out = tmp_path / "o.h5"
    assert main(["build", "--manifest", str(manifest), "--out", str(out), "--patches", "1"]) == 0
    with open_store(out) as store:
        assert store.split("train").rgb.shape == (6, 224, 224, 3)


def test_skipping_exits_with_1_and_says_what(spoilt, tmp_path, capfd):
    assert build(spoilt, tmp_path / "o.h5", "--on-error", "skip") == 1
    out, err = capfd.readouterr()
    assert "3 lesions, patches: train 2, val 1, test 1" in out
    (line,) = [line for line in err.splitlines() if not line.startswith("build: ")]
    assert line.startswith("skipped: patient=P01 row=3 P01/rtstruct.dcm: ")
    assert main(["info", str(tmp_path / "o.h5")]) == 0
    assert "skipped: patient P01 lesion 1: " in capfd.readouterr().out


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_refused_lesion_is_one_line_and_exit_2(spoilt, tmp_path, capfd, jobs):
    assert build(spoilt, tmp_path / "o.h5", "--jobs", jobs) == 2
    out, err = capfd.readouterr()
    (line,) = [line for line in err.splitlines() if not line.startswith("build: ")]
    assert re.fullmatch(r"ctpatch: patient=P01 row=3 P01/rtstruct\.dcm: .*tumour.* Do: .*", line)
    assert out == ""
    assert not (tmp_path / "o.h5").exists()


def test_going_on_tells_what_was_finished(manifest, tmp_path, capfd, monkeypatch):

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert build(manifest, tmp_path / "o.h5") == 1
    assert "No space left on device" in capfd.readouterr().err
    monkeypatch.undo()
    really, calls = ctpatch.build.one_lesion.cut_lesion, []

    def two_then_none(*arguments, **options):
        calls.append(1)
        if len(calls) > 2:
            raise MemoryError
        return really(*arguments, **options)

    monkeypatch.setattr(ctpatch.build.one_lesion, "cut_lesion", two_then_none)
    assert build(manifest, tmp_path / "o.h5") == 1
    one_error(capfd, r"patient=P02 row=4 P02/ct: out of memory\. Do: .*")
    monkeypatch.undo()
    assert build(manifest, tmp_path / "o.h5") == 0
    assert "; 2 lesions were finished before" in capfd.readouterr().out


@pytest.fixture(params=[signal.SIGTERM, signal.SIGHUP])
def ending(request):
    """A signal, as it is where nobody has told this process to ignore it."""
    before = signal.signal(request.param, signal.SIG_DFL)
    yield request.param
    signal.signal(request.param, before)


def test_a_time_limit_or_a_closed_terminal_ends_it_as_ctrl_c_does(manifest, tmp_path, capfd, monkeypatch, ending):
    """Slurm and `docker stop` send SIGTERM, a terminal that is closed SIGHUP."""

    def ended(*arguments, **options):
        os.kill(os.getpid(), ending)

    monkeypatch.setattr(ctpatch.build.one_lesion, "cut_lesion", ended)
    assert build(manifest, tmp_path / "o.h5") == 128 + ending
    one_error(capfd, "interrupted; finished lesions are kept, run the same command to go on")
    assert signal.getsignal(ending) is signal.SIG_DFL
    assert list(tmp_path.iterdir()) == []


def test_a_signal_that_is_ignored_stays_so(manifest, tmp_path, monkeypatch, ending):
    """As `nohup` has it."""
    signal.signal(ending, signal.SIG_IGN)
    told, fsync = [], os.fsync

    def signalled(number):
        told.append(os.kill(os.getpid(), ending))
        fsync(number)

    monkeypatch.setattr(os, "fsync", signalled)
    assert build(manifest, tmp_path / "o.h5") == 0
    assert told


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "1>&- 2>&-", "0<&- 1>&- 2>&-"])
def test_closed_streams(manifest, tmp_path, closed):
    words = ["build", "--manifest", manifest, "--out", tmp_path / "o.h5", *SMALL, "--jobs", "2"]
    command = shlex.join(map(str, [sys.executable, "-m", "ctpatch", *words]))
    done = subprocess.run(["sh", "-c", f"{command} {closed}"], capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done


@pytest.mark.parametrize(
    ("code", "place", "whose"),
    [
        (errno.EACCES, "0.dcm", "lesion"),
        (errno.EIO, None, "lesion"),
        (errno.EMFILE, "0.dcm", "machine"),
        (errno.EACCES, "/dev/shm/x", "machine"),
        (errno.ENOSPC, None, "machine"),
    ],
)
def test_what_the_machine_lacks_is_no_lesion_s_fault(manifest, tmp_path, capfd, monkeypatch, code, place, whose):
    """Else `--on-error skip` would leave out lesions that are as they should be."""

    def raising(row, recipe):
        raise OSError(code, os.strerror(code), *([str(row.image / place)] if place else []))

    monkeypatch.setattr(ctpatch.build.one_lesion, "plan_lesion", raising)
    assert build(manifest, tmp_path / "o.h5", "--on-error", "skip") == (2 if whose == "lesion" else 1)
    err = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("build: ")]
    assert all(("cannot be read (" in line) == (whose == "lesion") for line in err)
    assert len(err) == (4 if whose == "lesion" else 1)


def test_wrong_manifest_is_a_line_per_problem(tmp_path, capfd):
    manifest = cohort.write_cohort(tmp_path / "in", columns=lambda i: {"label": ""} if i < 2 else {})
    for command in (["build", "--out", str(tmp_path / "o.h5")], ["check"]):
        assert main([*command, "--manifest", str(manifest)]) == 2
        out, err = capfd.readouterr()
        said = "problem" if command == ["check"] else "ctpatch"  # it goes on with the other rows
        first, second = (line for line in err.splitlines() if not line.startswith("check: "))
        assert first.startswith(f"{said}: patient=P00 row=2 manifest.csv: label is blank. Do: ")
        assert second.startswith(f"{said}: patient=P01 row=3 manifest.csv: label is blank. Do: ")
        assert out == "" or command == ["check"]
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


WRONG_CALLS = {
    "--jobs 0": "--jobs is 0. Do: .*",
    "--jobs -2": "--jobs is -2. Do: .*",
    "--patches 0": "--patches is 0, outside 1 to 10000. Do: .*",
    "--augment 256": "--augment is 256, outside 0 to 255. Do: .*",
    "--rotate nan": "--rotate is nan, outside 0 to 180. Do: .*",
    "--shift -1": "--shift is -1, outside 0 to 1000. Do: .*",
    "--spacing 0": "--spacing is 0, outside 0.05 to 10. Do: .*",
    "--spacing inf": "--spacing is inf, outside .*",
    "--lidc-consensus 1.5": "--lidc-consensus is 1.5, outside .*",
    "--shard 0/4": "--shard '0/4' is not i/n with 1 <= i <= n. Do: .*",
    "--shard 1/2 --fold 1/2": "row=2 manifest.csv: the manifest has its own splits .* Do: .*",
    "--jobs 2 --scheduler tcp://h:1": "--jobs 2 and --scheduler. Do: leave out --jobs.*",
    "--fold 3/2": "--fold '3/2' is not i/k .* Do: .*",
    "--fold 1/2": "row=2 manifest.csv: the manifest has its own splits .* Do: .*",
}


@pytest.mark.parametrize("more", WRONG_CALLS)
def test_wrong_options(manifest, tmp_path, more, capfd):
    assert build(manifest, tmp_path / "o.h5", *more.split()) == 2
    assert one_error(capfd, WRONG_CALLS[more]) == ""
    assert list(tmp_path.iterdir()) == []


NEEDED = "--manifest m.csv --out o.h5"


@pytest.mark.parametrize(
    ("call", "found"),
    [
        ("", r"the following arguments are required: COMMAND. Do: see ctpatch --help\."),
        ("nonsense", r".*invalid choice: 'nonsense' .* Do: see ctpatch --help\."),
        ("--nonsense info o.h5", r"unrecognized arguments: --nonsense. Do: see ctpatch --help\."),
        ("build", r".* required: --manifest, --out. Do: see ctpatch build --help\."),
        (f"build {NEEDED} --jobs x", r"argument --jobs: invalid int value: 'x'. Do: see ctpatch build --help\."),
        (f"build {NEEDED} --pathces 3", r"unrecognized arguments: --pathces 3. Do: see ctpatch build --help\."),
        ("info", r".* required: store. Do: see ctpatch info --help\."),
        ("info o.h5 a\nb", r"unrecognized arguments: a\\nb. Do: see ctpatch info --help\."),
    ],
)
def test_wrong_calls_are_one_line_and_exit_with_2(call, found, capfd):
    with pytest.raises(SystemExit) as ended:
        main(call.split(" ") if call else [])
    assert ended.value.code == 2
    out, err = capfd.readouterr()
    assert re.fullmatch(f"ctpatch: {found}\n", err), err
    assert out == ""


@pytest.mark.parametrize("command", ["build", "check", "info", "verify", "scan", "phantom"])
def test_help_names_the_exit_statuses(command, capfd):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert "Exit status: 0 done" in " ".join(capfd.readouterr().out.split())


def test_version(capfd):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capfd.readouterr().out == f"ctpatch {__version__}\n"


def test_check(manifest, spoilt, capfd):
    assert main(["check", "--manifest", str(manifest)]) == 0
    out, _ = capfd.readouterr()
    assert out.splitlines()[-1].startswith(f"{manifest}: 4 lesions, 0 problems, ")
    assert main(["check", "--manifest", str(spoilt)]) == 2
    out, err = capfd.readouterr()
    assert out.splitlines()[-1].startswith(f"{spoilt}: 4 lesions, 1 problems, ")
    (line,) = [line for line in err.splitlines() if not line.startswith("check: ")]
    assert re.fullmatch(r"problem: patient=P01 row=3 P01/rtstruct\.dcm: .* Do: .*", line)


def test_missing_files(tmp_path, capfd):
    for call in (["info", "none.h5"], ["verify", "none.h5"], ["check", "--manifest", "none.csv"]):
        call[-1] = str(tmp_path / call[-1])
        assert main(call) == 2
        assert one_error(capfd, ".*none.* Do: .*") == ""


def test_out_that_cannot_be_written(manifest, tmp_path, capfd):
    (tmp_path / "o.h5.parts").write_text("a file in the way")
    assert build(manifest, tmp_path / "o.h5") == 1
    assert one_error(capfd, ".*o.h5.parts.*") == ""


def test_each_command_in_a_process_of_its_own_prints_no_warning(tmp_path):
    """`-W default`, not `-W error`: with that, what Python's resource tracker has to say at the end is not printed."""
    (tmp_path / "table.csv").write_text("patient_id,label,split\n1,a,train\n2,b,val\n3,a,test\n")
    calls = (
        ["phantom", "--manifest", "table.csv", "--out", "study", "--jobs", "2"],
        ["scan", "study", "--out", "scanned.csv"],
        ["check", "--manifest", "study/table.csv"],
        ["build", "--manifest", "study/table.csv", "--out", "o.h5", *SMALL],
        ["build", "--manifest", "study/table.csv", "--out", "two.h5", *SMALL, "--jobs", "2"],
        ["info", "o.h5"],
        ["verify", "o.h5"],
        ["report", "o.h5", "--manifest", "study/table.csv", "--out", "page.html", "--jobs", "2"],
    )
    for call in calls:
        command = [sys.executable, "-W", "default", "-m", "ctpatch", *call]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        told = [line for line in done.stderr.splitlines() if not re.fullmatch(r"\w+: \d of \d", line)]
        assert told == [], call
    made = ["o.h5", "page.html", "scanned.csv", "study", "table.csv", "two.h5"]
    assert sorted(path.name for path in tmp_path.iterdir()) == made


def test_progress_bar_on_a_terminal(manifest, tmp_path):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    command = [sys.executable, "-m", "ctpatch", "build", "--manifest", manifest, "--out", tmp_path / "o.h5", *SMALL]
    process = subprocess.Popen([str(word) for word in command], stderr=theirs, stdout=subprocess.PIPE)
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # Linux's word for the end of a terminal
            break
        if not piece:
            break
        shown += piece
    process.communicate()
    os.close(ours)
    assert process.returncode == 0
    assert b"build: 100%" in shown
    assert b"4/4" in shown


def test_reader_of_the_output_goes_away(manifest):
    command = f"{sys.executable} -m ctpatch check --manifest '{manifest}' | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
