"""CSV files are read strictly, and what is wrong is named by file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irene_build.dataset.rows import check_not_cut, read_csv
from irene_build.errors import DatasetError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "table.csv"


def test_cells_come_back_by_column_with_their_line(file: Path) -> None:
    file.write_text("a,b\n1, x \n\n2.0,y\n", encoding="utf-8-sig")
    rows = read_csv(file, ["a"])
    assert [(row.line, row.count("a"), row.text("b")) for row in rows] == [(2, 1, "x"), (4, 2, "y")]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"a,b\n", "header without rows"),
        (b"a\n1\n", "line 1: column 'b' is missing"),
        (b"a,b,b\n1,2,3\n", "line 1: a column name is there twice"),
        (b"a,b\n1,2\n3\n", "line 3: 1 cells where the header has 2"),
        (b"a,b\n1,2,3\n", "line 2: 3 cells"),
        (b"a,b\n1,2\n3,\xe9\n", "line 3: not UTF-8"),
        ("a,b\n1,2\n".encode("utf-16"), "not UTF-8"),
        (b"a,b\n1,\x00\n", "line 2: a zero byte"),
        (b'a,b\n1,"2\n', "not CSV"),
    ],
)
def test_broken_files_are_named(file: Path, content: bytes, says: str) -> None:
    file.write_bytes(content)
    with pytest.raises(DatasetError, match=says) as caught:
        read_csv(file, ["a", "b"])
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("cell", ["", "x", "nan", "inf", "-1", "1e999", "0x10", "1,5"])
def test_bad_numbers_are_named(file: Path, cell: str) -> None:
    file.write_text(f'a,b\n1,2\n"{cell}",2\n')
    row = read_csv(file, ["a", "b"])[1]
    with pytest.raises(DatasetError, match="line 3: a is"):
        row.number("a")


def test_zero_and_fractions_are_refused_where_they_make_no_sense(file: Path) -> None:
    file.write_text("a,b\n0,1.5\n")
    row = read_csv(file, ["a", "b"])[0]
    assert row.number("a") == 0.0
    with pytest.raises(DatasetError, match="positive"):
        row.number("a", positive=True)
    with pytest.raises(DatasetError, match="whole"):
        row.count("b")


def test_a_file_that_ends_inside_its_last_word_is_cut(file: Path) -> None:
    file.write_text("a,model\n1,gpt2\n2,gpt2\n3,gp")
    with pytest.raises(DatasetError, match="line 4: the file ends inside a row"):
        check_not_cut(read_csv(file, ["a"]), "model")


def test_a_missing_last_newline_alone_is_fine(file: Path) -> None:
    file.write_text("a,model\n1,gpt2\n2,gpt2")
    check_not_cut(read_csv(file, ["a"]), "model")


@given(content=st.binary(max_size=200))
def test_no_bytes_crash_the_reader(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "f.csv"
    path.write_bytes(content)
    try:
        rows = read_csv(path, ["a"])
    except DatasetError:
        return
    assert rows and all("a" in row.cells for row in rows)


@pytest.mark.parametrize("sign", [";", "\t"])
def test_semicolons_and_tabs_separate_where_the_header_has_no_comma(file: Path, sign: str) -> None:
    file.write_text(sign.join("ab") + "\n" + sign.join("12") + "\n")
    assert read_csv(file, ["a", "b"])[0].cells == {"a": "1", "b": "2"}


def test_a_decimal_comma_is_told(file: Path) -> None:
    file.write_text("a;b\n1,5;2\n")
    with pytest.raises(
        DatasetError, match=r"line 2: a is '1,5', expected a number; write it with a decimal point"
    ):
        read_csv(file, ["a"])[0].number("a")
