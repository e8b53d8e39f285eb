"""A row with cells too many costs itself, wherever it stands; what cannot be used is told with its line in the file."""

import bz2
import csv
import gzip
import io
import zipfile

import numpy as np
import pandas as pd
import pytest

from spectramind_nb.apps.scoring import score
from spectramind_nb.core.errors import DamagedFileError, SchemaError
from spectramind_nb.core.tables import read_rows, read_table
from spectramind_nb.observations.lightcurves import LightCurves
from spectramind_nb.runs import submission

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


def parquet():
    buffer = io.BytesIO()
    pd.DataFrame({"planet_id": [1], "Rs": [1.0]}).to_parquet(buffer)
    return buffer.getvalue()


def workbook():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
    return buffer.getvalue()


OTHER_CONTENTS = {  # what a file called .csv holds -> its bytes
    "a Parquet table": parquet(), "a workbook or a zip archive": workbook(), ".gz data": gzip.compress(b"planet_id,Rs\n1,1.0\n"),
    ".bz2 data": bz2.compress(b"planet_id,Rs\n1,1.0\n"), "UTF-16 text": "planet_id,Rs\n1,1.0\n".encode("utf-16"),
    "an array of numpy": b"\x93NUMPY\x01\x00", "FITS": b"SIMPLE  =                    T",
}  # fmt: skip


@pytest.mark.parametrize("what", OTHER_CONTENTS)
@pytest.mark.parametrize("read", [
    lambda path: read_table(path, ["Rs"]), lambda path: read_rows(path, ["Rs"]), submission.validate,
    lambda path: submission.validate("good.csv.gz", path), LightCurves.from_file, lambda path: score(pd.DataFrame({"planet_id": []}), path),
])
def test_a_table_of_another_format_is_told_by_what_it_is(tmp_path, monkeypatch, read, what):
    monkeypatch.chdir(tmp_path)
    submission.write("good.csv.gz", [1], np.full((1, 283), 0.01), np.full((1, 283), 1e-4))
    (tmp_path / "table.csv").write_bytes(OTHER_CONTENTS[what])
    with pytest.raises(DamagedFileError, match=f"table.csv holds {what}, not CSV .*table.csv.*[a-zA-Z]") as refused:
        read(tmp_path / "table.csv")
    assert refused.value.exit_code == 3 and refused.value.remedy


def test_a_packed_table_is_what_its_name_says(tmp_path):
    path = submission.write(tmp_path / "s.csv.gz", [1], np.full((1, 283), 0.01), np.full((1, 283), 1e-4))
    assert submission.validate(path).planets == 1
    plain = gzip.decompress(path.read_bytes())
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(DamagedFileError, match="cannot be unpacked"):
        submission.validate(path)
    with pytest.raises(DamagedFileError, match="s.csv.gz holds .gz data, not CSV"):
        read_rows(path, ["wl_1"])
    path.write_bytes(plain)
    with pytest.raises(DamagedFileError, match="s.csv.gz is not compressed, as its name says.* Name it without .gz"):
        submission.validate(path)


@pytest.mark.parametrize("separator, name, decimal", [(";", "semicolons", "."), (";", "semicolons", ","), ("\t", "tabs", ".")])
def test_a_table_without_commas_is_told_so(tmp_path, separator, name, decimal):
    """As spreadsheets write it where numbers have decimal commas."""
    pd.DataFrame({"planet_id": [7], "wl_1": [0.01]}).to_csv(tmp_path / "table.csv", sep=separator, decimal=decimal, index=False)
    with pytest.raises(SchemaError, match=f"separated by {name}, not commas .*table.csv"):
        read_table(tmp_path / "table.csv", ["wl_1"])


def test_a_table_at_home_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "stars.csv").write_text("planet_id,Rs\n1,1.0\n")
    assert read_table("~/stars.csv", ["Rs"])["Rs"].tolist() == read_rows("~/stars.csv", ["Rs"])[0]["Rs"].tolist() == [1.0]
