import pickle
from pathlib import Path

import pytest

from ctpatch.errors import CtpatchError, InputError, Problems, one_line, relative


def test_line_has_patient_row_path_finding_and_action():
    error = InputError("3 slices", "give 4", Path("ct"), "007", 5)
    assert str(error) == "patient=007 row=5 ct: 3 slices. Do: give 4."
    assert str(InputError("3 slices", "give 4")) == "3 slices. Do: give 4."
    assert str(InputError("3 slices", "give 4", row=0)) == "row=0: 3 slices. Do: give 4."


def test_exit_status():
    assert (CtpatchError.exit_status, InputError.exit_status, Problems.exit_status) == (1, 2, 2)


def test_at_fills_in_and_never_replaces():
    error = InputError("a", "b", "own", "p", 3).at(patient="q", row=4, where="other")
    assert (error.where, error.patient, error.row) == ("own", "p", 3)
    error = InputError("a", "b").at(patient="q", row=4, where="other")
    assert (error.where, error.patient, error.row) == ("other", "q", 4)


def test_at_makes_paths_relative_but_leaves_names():
    root = Path("/data/study")
    assert InputError("a", "b", root / "p" / "ct").at(root=root).where == "p/ct"
    assert InputError("a", "b", Path("/data/other")).at(root=root).where == "../other"
    assert InputError("a", "b", "as typed").at(root=root).where == "as typed"


def test_input_never_adds_lines_or_terminal_codes():
    error = InputError("ROI 'a\nb\x1b[31m\u2028'", "rename\rit", "dir\tx", "p\x00")
    assert str(error).isprintable()
    assert "\\n" in str(error)
    assert one_line("\x1b[31m é 肺 \udcff") == "\\x1b[31m é 肺 \\udcff"


def problems():
    return Problems([InputError("a", "b", Path("/r/x")), InputError("c", "d", row=3)])


def test_problems_are_a_line_each():
    assert str(problems()) == "/r/x: a. Do: b.\nrow=3: c. Do: d."


def test_problems_at_fills_in_each():
    placed = problems().at(patient="p", row=9, root=Path("/r"))
    assert isinstance(placed, Problems)
    assert str(placed) == "patient=p row=9 x: a. Do: b.\npatient=p row=3: c. Do: d."


@pytest.mark.parametrize("error", [InputError("a", "b", Path("x"), "p", 2), problems(), CtpatchError("out of memory")])
def test_errors_survive_the_way_from_a_worker(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)


def test_relative():
    assert relative("/a/b/c", Path("/a")) == "b/c"
