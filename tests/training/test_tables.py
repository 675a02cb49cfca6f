"""Reading of table files: what is read right, and what is refused with its line."""

import gzip
import re
import zipfile

import pytest

from ganlstm_fast.training.data import load_series
from ganlstm_fast.training.errors import InputError
from ganlstm_fast.training.tables.read import read_table


def read(tmp_path, content, **options):
    file = tmp_path / "t.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_series(file, options.pop("columns", None), **options)


def by_column(series):
    return dict(zip(series.columns, series.values.T.tolist(), strict=True))


@pytest.mark.parametrize(
    ("text", "values", "notes"),
    [
        ("Open,Close,Volume\n1,2,3,\n4,5,6,\n", {"Open": [1, 4], "Close": [2, 5]}, []),
        ("a;b\n1;2\n3;4\n", {"a": [1, 3], "b": [2, 4]}, ["semicolons"]),
        ("a\tb\n1\t2\n3\t4\n", {"a": [1, 3], "b": [2, 4]}, ["tabs"]),
        ("a|b\n1|2\n3|4\n", {"a": [1, 3], "b": [2, 4]}, ["bars"]),
        ("sep=;\na;b\n1;2\n3;4\n", {"a": [1, 3]}, ["semicolons"]),
        ("a;b, in m\n1;2,5\n3;4,25\n", {"b, in m": [2.5, 4.25]}, ["semicolons", "decimal commas"]),
        ("a;b\n1.5;2\n3.5;4\n", {"a": [1.5, 3.5]}, ["semicolons"]),
        ('a,b\n"1,5",2\n"0,123",4\n', {"a": [1.5, 0.123]}, ["decimal commas"]),
        ("a,b\r1,2\r3,4\r", {"a": [1, 3], "b": [2, 4]}, []),
        ('a, b\n1, 2\n"3" ,4\n', {"a": [1, 3], "b": [2, 4]}, []),
        ("\n\na,b\n1,2\n3,4\n", {"a": [1, 3]}, []),
        ("# by x\n# y\na,b\n1,2\n", {"a": [1], "b": [2]}, ["2 lines of comments skipped"]),
        ("# a,b\n1.0,2\n3,4\n", {"a": [1, 3], "b": [2, 4]}, []),
    ],
)
def test_delimiter_and_decimal_sign_are_found_out_and_said(tmp_path, text, values, notes):
    series = read(tmp_path, text)
    assert by_column(series).items() >= values.items()
    assert list(series.notes) == notes


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a;b\n1.234,56;1\n999,1;2\n1.000;3\n", [1234.56, 999.1, 1000]),
        ("a;b\n1\u00a0234,5;1\n-2\u202f000,25;2\n,5;3\n", [1234.5, -2000.25, 0.5]),
        ("a;b\n1.234.567;1\n999;2\n1.000;3\n", [1234567, 999, 1000]),
        ('a,b\n"1,234",1.5\n"2,345,678",2\n', [1234, 2345678]),
        ('a,b\n"1,234",1.5\n345,2\n', [1234, 345]),
        ('a,b\n"1,234.5",1\n"12,000.25",2\n', [1234.5, 12000.25]),
    ],
)
def test_signs_between_thousands(tmp_path, text, values):
    series = read(tmp_path, text)
    assert by_column(series)["a"] == values
    assert "thousands set apart" in series.notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Open,Close,Volume\n1,2,3,\n4,5,6,7\n", "expected 3 fields .* got 4 in line 3;"),
        ('"a","b"\n"1",5,6\n"2",7,8\n', "expected 2 fields .* got 3 in lines 2-3;"),
        ("a,b,c\n1,2,3\n4,5\n6,7,8\n", "expected 3 fields .* got 2 in line 3;"),
        ("a,b\n1,234,5\n6,7\n", "got 3 in line 2; .* decimals with a point"),
        ("a\n1,5\n3,25\n", "got 2 in lines 2-3;"),
        ("Station 5\n\na,b\n1,2\n", "expected 1 .* got 2 in lines 3-4;"),
        ("a,b\n1,2\n# note\n3,4\n", "got 1 in line 3;"),
        ('a,b\n1,"x\ny"\n2\n', "got 1 in line 4;"),
        ('a,b\n1,"x\n2,z\n3,w\n', "a quote in line 2 is not closed"),
        ("a,b,a\n1,2,3\n", r"the name a stands 2 times in line 1 \(columns 1, 3\)"),
        (",Unnamed: 0,b\n1,2,3\n", "has the name that one without a name gets"),
        ("a\n1 234\n2 500\n", r"0 numbers and 2 of other kinds, such as '1 234'"),
        ("a,b\n1,inf\n2,1e400\n", "missing or infinite values in b, lines 2-3"),
        ("a,,b\n1,2,3\n", "column 2 has values but no name"),
        ("a,b,\n1,2,3\n", "column 3 has values but no name, line 2;"),
        ("2020-01-01,5,6\n2020-01-02,5,6\n", "first line holds numbers"),
        ('a,b\n"1,234",5\n"2,345",6\n', r"'1,234' in line 2 \(a\) may be 1234 or 1.234"),
        ('a,b\n"1,5",5\n"2,345.5",6\n', "'1,5' in line 2 .* decimal comma, '2,345.5' in line 3"),
        ("a;b\n1,5;4.5\n2,5;5\n", r"column b has decimal points \('4.5', line 2\)"),
        ('a,b\n"1,5",1\n"2,5",2\n"3,5",1\n7.5,2\n', r"3 numbers and 1 .* '7.5' \(line 5\)"),
        ("a;b\n1.051;n\n-368;n\n", r"'1.051' in line 2 \(a\) may be 1051 or 1.051"),
        ("a b\n1 2\n3 4\n", "no column of numbers .*commas, semicolons or tabs"),
        (
            "a,b\n1,2\n-,3\n4,5\n",
            r"column a has 2 numbers and 1 of other kinds, such as '-' \(line 3",
        ),
        ("a,b\n1,2\n4,5\nx,3\n?,3\n", r"2 numbers and 2 of other kinds, such as 'x' \(lines 4-5\)"),
        ("a,b\n1,2\n12%,3\n4,5\n", "such as '12%'"),
    ],
)
def test_what_is_not_clear_is_refused_with_its_line(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_columns_left_out_are_named_with_the_reason(tmp_path):
    text = "No,name,share,flag,none,x\n"
    text += "".join(f"{7 + 2 * k},n{k},{k}%,True,,{k * k}\n" for k in range(6))
    series = read(tmp_path, text)
    assert series.columns == ("x",)
    assert series.notes[0] == (
        "left out: No (counts up by 2), name (text such as 'n0'), share (text such as '0%'), "
        "flag (true or false), none (empty)"
    )
    assert read(tmp_path, text, columns=["No"]).values[:, 0].tolist() == [7, 9, 11, 13, 15, 17]


@pytest.mark.parametrize("index", ["0 1 2 3 4 5", "9 4 7 1 2 0"])
@pytest.mark.parametrize("name", ["", "Unnamed: 0"])
def test_the_index_that_pandas_writes_is_no_channel(tmp_path, name, index):
    rows = "".join(f"{n},{k % 3}\n" for k, n in enumerate(index.split()))
    series = read(tmp_path, f"{name},a\n{rows}")
    assert series.columns == ("a",)
    assert series.notes[0].startswith("left out: Unnamed: 0")


def test_columns_that_were_not_asked_for_may_hold_anything(tmp_path):
    series = read(tmp_path, "a,b\n-,1\n2,3\n4,5\n", columns=["b"])
    assert by_column(series) == {"b": [1, 3, 5]}
    with pytest.raises(InputError, match=r"column a .* such as '-' \(line 2\)"):
        read(tmp_path, "a,b\n-,1\n2,3\n4,5\n", columns=["a", "b"])


def test_numbers_of_many_digits(tmp_path):
    series = read(tmp_path, f"a,b\n{10**25},1\n2,3\n")
    assert by_column(series) == {"a": [1e25, 2], "b": [1, 3]}


@pytest.mark.parametrize("text", ["a;b\n\u00a01;2\n3 ;4\n", "a,b\n\u00a01,2\n3\u00a0,4\n"])
def test_spaces_around_numbers(tmp_path, text):
    assert by_column(read(tmp_path, text)) == {"a": [1, 3], "b": [2, 4]}


def test_names_have_one_line(tmp_path):
    assert read(tmp_path, '"a\nin m",b\n1,2\n3,4\n').columns == ("a in m", "b")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a\n18.290\n-7.125\n", True),
        ("a\n18.290\n0.125\n", False),
        ("a,b\n18.290,1.5\n7.125,2\n", False),
        ("a\n18.2905\n7.125\n", False),
        ("a,b\n2.125,3.5\n2,4\n", False),
    ],
)
def test_points_that_could_stand_between_thousands_are_told(tmp_path, text, said):
    notes = read(tmp_path, text).notes
    assert ("points read as decimal signs, such as in 18.290" in notes) == said


def test_columns_that_count_are_kept_if_there_is_nothing_else(tmp_path):
    assert by_column(read(tmp_path, "a\n1\n2\n3\n4\n5\n6\n")) == {"a": [1, 2, 3, 4, 5, 6]}


def test_a_column_that_only_grows_is_told(tmp_path):
    series = read(tmp_path, "ts,a\n" + "".join(f"{k * k},{k % 3}\n" for k in range(9)))
    assert series.columns == ("ts", "a")
    assert "ts only grows" in series.notes[0]


@pytest.mark.parametrize(
    ("encoding", "note"),
    [
        ("utf-8-sig", []),
        ("utf-16", ["UTF-16"]),
        ("latin-1", ["not UTF-8: read as Windows-1252"]),
    ],
)
def test_encodings(tmp_path, encoding, note):
    series = read(tmp_path, "größe,b\n1,2\n3,4\n".encode(encoding))
    assert by_column(series) == {"größe": [1, 3], "b": [2, 4]}
    assert list(series.notes) == note


def test_packed_files(tmp_path):
    content = b"a,b\n1,2\n3,4\n"
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(content))
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("t.csv", content)
    for name in ("t.csv.gz", "t.zip"):
        assert by_column(load_series(tmp_path / name)) == {"a": [1, 3], "b": [2, 4]}
    (tmp_path / "t.csv.gz").write_bytes(content)
    with pytest.raises(InputError, match=r"t\.csv\.gz cannot be "):
        load_series(tmp_path / "t.csv.gz")


@pytest.mark.parametrize(
    ("start", "kind"), [(b"PK\3\4", "an Excel workbook"), (b"PAR1", "a Parquet file"), (b"", "bin")]
)
def test_binary_files_are_named(tmp_path, start, kind):
    with pytest.raises(InputError, match=rf"t\.csv is not text but {kind}"):
        read(tmp_path, start + b"\0\1\2")


def test_lines_count_those_within_quotes(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text('\n# c\na,note\n1,"x\ny"\n\n2,z\n3,"v\n\nw"\n4,u\n')
    table = read_table(file)
    assert table.lines.tolist() == [4, 6, 7, 8, 11]
    with pytest.raises(InputError, match=re.escape("values in a, line 6;")):
        load_series(file)


def test_many_errors_name_a_few_lines(tmp_path):
    with pytest.raises(InputError, match=r"in lines 2, 4, 6, 8, 10 and 5 more"):
        read(tmp_path, "a,b\n" + "1,2,3\n4,5\n" * 10)
