"""A row with cells too many costs itself, wherever it stands; what cannot be used is told with its line in the file."""

import csv

import pytest

from spectramind_nb.core.errors import DamagedFileError
from spectramind_nb.core.tables import read_rows, read_table

GOOD = ["1,1.0,2.0", "2,1.5,3.0", "3,2.0,4.0"]


def rows_of(path, lines, end="\n"):
    path.write_bytes(end.join(["planet_id,Rs,P", *lines, ""]).encode())
    return read_rows(path, ["Rs", "P"])


@pytest.mark.parametrize("crowded", ["9,1.0,2.0,7", "9,1.0,2.0,7,8", "star 9,1.0,2.0,7", "9,1.0,2.0,,7"])
@pytest.mark.parametrize("place", range(4))
def test_a_row_with_cells_too_many_costs_itself(tmp_path, crowded, place):
    rows, faults = rows_of(tmp_path / "stars.csv", [*GOOD[:place], crowded, *GOOD[place:]])
    assert rows.to_dict() == {"Rs": {1: 1.0, 2: 1.5, 3: 2.0}, "P": {1: 2.0, 2: 3.0, 3: 4.0}}
    assert faults == {f"line {place + 2}": f"line {place + 2} of stars.csv has more cells than columns"}


@pytest.mark.parametrize("end", [",\n", ",,\n", "\r\n"])
def test_commas_at_the_ends_of_lines_are_no_cells(tmp_path, end):
    rows, faults = rows_of(tmp_path / "stars.csv", GOOD, end)
    assert list(rows.index) == [1, 2, 3] and rows["P"].tolist() == [2.0, 3.0, 4.0] and not faults


def test_lines_of_nothing_but_commas_and_long_cells_cost_nothing(tmp_path):
    before = csv.field_size_limit()
    rows, faults = rows_of(tmp_path / "stars.csv", ["1,1.0,2.0", ",,", ",,,,,", f"2,1.5,3.0{200_000 * ' '}"])
    assert rows["P"].tolist() == [2.0, 3.0] and not faults
    assert csv.field_size_limit() == before  # the rest of the process has a limit of its own


def test_lines_are_counted_as_an_editor_counts_them(tmp_path):
    lines = ["", "1,1.0,2.0", "  ", "2,1,2,3", '3,"a\nb",2', "", "x,1,2"]
    _, faults = rows_of(tmp_path / "stars.csv", lines)
    assert [fault for fault in faults if isinstance(fault, str)] == ["line 5", "line 9"]


def test_in_a_table_in_which_nothing_may_be_wrong_no_column_is_shifted(tmp_path):
    path = tmp_path / "adc.csv"
    path.write_text("gain,offset\n0.4,-1000,\n")
    assert read_table(path, ["gain", "offset"], key=None).iloc[0].tolist() == [0.4, -1000]
    path.write_text("gain,offset\n7,0.4,-1000\n")
    with pytest.raises(DamagedFileError, match="adc.csv is not a CSV table"):
        read_table(path, ["gain", "offset"], key=None)
