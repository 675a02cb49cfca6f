"""The lines of a table: their delimiter, the columns' names, and how many fields each has."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ganlstm_fast.training.errors import InputError

DELIMITERS = {"\t": "tabs", ";": "semicolons", "|": "bars", ",": "commas"}
# Records that the delimiter is found from.
LOOKED_AT = 200
_VALUE = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?|\d{1,4}[-/.]\d{1,2}[-/.]\d.*")


@dataclass(frozen=True)
class Records:
    """The checked lines of a table.

    Attributes:
        delimiter: between two fields.
        names: of the columns; "" for one that has none.
        body: the text below the names.
        width: fields of the longest record; those past the names are empty in every record.
        lines: [records] int64, the line of the file at which each starts.
        notes: how the file was read.
    """

    delimiter: str
    names: tuple[str, ...]
    body: str
    width: int
    lines: np.ndarray
    notes: list[str]


def names(of: Sequence[str], most: int = 8) -> str:
    """The first ``most`` of some names, and how many more there are."""
    more = f" and {len(of) - most} more" if len(of) > most else ""
    return ", ".join(list(of)[:most]) + more


def at_lines(lines: np.ndarray, most: int = 5, word: str = "line") -> str:
    """Sorted numbers of lines in words, runs of them as one."""
    runs = np.split(lines, np.flatnonzero(np.diff(lines) > 1) + 1)
    words = [str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs]
    return f"{word}{'s' if len(lines) > 1 else ''} {names(words, most)}"


def at_rows(rows: np.ndarray) -> str:
    """As :func:`at_lines`, of rows of a table in memory, which Python counts from 0."""
    return f"{at_lines(rows, word='row')} from 0"


def split_records(text: str, file: Path) -> Records:
    """Find the delimiter and the names, and check that every line fits them.

    Lines above the names that are empty or start with ``#`` are skipped, and so is Excel's
    ``sep=;``. Fields past the last name may be there if they are empty in every line.

    Raises:
        InputError: no names, names that stand twice, a line with more or fewer fields than there
            are names, or a quote that is not closed.
    """
    # As csv splits them: at \n, \r\n and \r.
    physical = io.StringIO(text, newline="").readlines()
    top, told, given = _names_line(physical, file)
    delimiter = given or _delimiter(physical[top:])
    try:
        header, after = next(_parsed(physical[top:], delimiter))
        header = [re.sub(r"\s*[\r\n]+\s*", " ", name) for name in _commented(header)]
        body = physical[top + after :]
        width, lines = _checked(header, body, delimiter, top + after, file)
    except csv.Error as error:
        raise InputError(f"{file} is not a CSV file: {error}") from None
    while header and not header[-1].strip():
        header.pop()
    _check_names(header, file, top + 1)
    notes = [*told, *([] if delimiter == "," else [DELIMITERS.get(delimiter, repr(delimiter))])]
    return Records(delimiter, tuple(header), "".join(body), width, lines, notes)


def _names_line(physical: list[str], file: Path) -> tuple[int, list[str], str | None]:
    """Where the names stand, notes, and the delimiter if the file names it."""
    given, comments = None, []
    for number, line in enumerate(physical):
        stripped = line.strip()
        if number == 0 and re.fullmatch(r"sep=.", line.rstrip("\r\n")):
            given = line.rstrip("\r\n")[-1]
        elif stripped.startswith("#"):
            comments.append(number)
        elif stripped:
            break
    else:
        raise InputError(f"{file} has no line of column names")
    # numpy.savetxt and others write the names as a comment.
    if comments and comments[-1] == number - 1 and _are_values(line, given):
        number = comments.pop()
    said = [f"{len(comments)} lines of comments skipped"] if comments else []
    return number, said, given


def _are_values(line: str, given: str | None) -> bool:
    fields = [f.strip().strip('"') for f in line.split(given or _delimiter([line]))]
    filled = [field for field in fields if field]
    return bool(filled) and all(_VALUE.fullmatch(field) for field in filled)


def _commented(header: list[str]) -> list[str]:
    return [header[0].lstrip("# "), *header[1:]] if header and header[0][:1] == "#" else header


def _parsed(lines: Iterable[str], delimiter: str) -> Iterator[tuple[list[str], int]]:
    """The fields of each record, and how many lines have been read after it."""
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    for fields in reader:
        yield fields, reader.line_num


def _delimiter(lines: list[str]) -> str:
    """The first of ``DELIMITERS`` that splits the names and, as often, most lines below them."""
    for delimiter in DELIMITERS:
        try:
            some = [f for f, _ in itertools.islice(_parsed(lines, delimiter), LOOKED_AT) if f]
        except csv.Error:
            continue
        count = len(some[0]) if some else 0
        alike = sum(len(fields) == count for fields in some)
        if count > 1 and alike >= 0.9 * len(some):
            return delimiter
    # None fits: the one that stands most often among the names, so that the error names a line.
    return max(",;\t|", key=lines[0].count) if lines else ","


def _checked(
    header: list[str], body: list[str], delimiter: str, first: int, file: Path
) -> tuple[int, np.ndarray]:
    """The longest record's fields, and the line of each; ``first`` lines stand above ``body``."""
    named = len(header)
    while named and not header[named - 1].strip():
        named -= 1
    width, before, starts = max(named, 1), 0, []
    wrong: list[tuple[int, int]] = []
    unnamed = 0
    fields: list[str] = []
    for fields, after in _parsed(body, delimiter):
        start, before = first + before + 1, after
        starts.append(start)
        if len(fields) == named or (len(fields) < 2 and not "".join(fields).strip()):
            continue
        width = max(width, len(fields))
        if len(fields) < named or any(field.strip() for field in fields[named:]):
            wrong.append((start, len(fields)))
            unnamed += named < len(fields) <= len(header)
    if starts and _open_quote(body[starts[-1] - first - 1 :], delimiter):
        raise InputError(f"{file}: a quote in line {starts[-1]} is not closed")
    if wrong:
        count = wrong[0][1]
        if unnamed == len(wrong):
            raise InputError(
                f"{file}: column {named + 1} has values but no name, {_of(wrong)}; name it in the "
                "first line, or cut it"
            )
        hint = "quote fields that hold the delimiter"
        if delimiter == "," and count > named:
            hint += ", or write decimals with a point"
        raise InputError(
            f"{file}: expected {named} fields separated by {DELIMITERS.get(delimiter, delimiter)} "
            f"as there are names ({names(header[:named])}), got {count} in {_of(wrong)}; cut or "
            f"complete what is not of the table, {hint}"
        )
    return width, np.array(starts, dtype=np.int64)


def _open_quote(last: list[str], delimiter: str) -> bool:
    """Whether the last record ends within quotes, which the lenient reader does not tell."""
    try:
        list(csv.reader(last, delimiter=delimiter, skipinitialspace=True, strict=True))
    except csv.Error as error:
        return "unexpected end" in str(error)
    return False


def _of(wrong: list[tuple[int, int]]) -> str:
    """The lines with as many fields as the first wrong one."""
    return at_lines(np.array([line for line, count in wrong if count == wrong[0][1]]))


def _check_names(header: list[str], file: Path, line: int) -> None:
    filled = [name for name in header if name.strip()]
    # As pandas names an array's columns below those of an index: nothing, then 0, 1, 2, ...
    counted = header[1:] == [str(k) for k in range(len(header) - 1)]
    if all(_VALUE.fullmatch(name.strip()) for name in filled) and (
        header[:1] != [""] or not counted
    ):
        raise InputError(
            f"{file}: the first line holds numbers; put the columns' names there"
            if filled
            else f"{file}: line {line} holds no column names"
        )
    twice = sorted({name for name in filled if filled.count(name) > 1})
    if twice:
        places = [str(k + 1) for k, name in enumerate(header) if name == twice[0]]
        raise InputError(
            f"{file}: the name {twice[0]} stands {len(places)} times in line {line} (columns "
            f"{', '.join(places)}); give each column a name of its own"
        )
