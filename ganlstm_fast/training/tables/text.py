"""The text of a file, whatever its encoding and compression."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile
import zlib
from pathlib import Path

from ganlstm_fast.training.errors import InputError

_PACKED = {".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress}
_BINARY = {b"PK": "an Excel workbook or a zip archive", b"PAR1": "a Parquet file"}
_MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)


def read_text(file: Path) -> tuple[str, list[str]]:
    """The text of ``file``, its lines' ends as they stand, and notes on how it was read.

    UTF-8 with or without a byte order mark, UTF-16 and UTF-32 with one, else Windows-1252; packed
    by gzip, bzip2, xz or zip if the name ends so.

    Raises:
        InputError: no such file, an empty one, or one that is not text.
    """
    content = _unpacked(file)
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return _decoded(content, encoding, file), [encoding.upper()]
    if b"\0" in content[:65536]:
        kind = next((words for start, words in _BINARY.items() if content.startswith(start)), None)
        raise InputError(
            f"{file} is not text but {kind or 'binary data'}; save it as CSV in UTF-8 and give that"
        )
    try:
        text, notes = content.decode("utf-8-sig"), []
    except UnicodeDecodeError:
        text, notes = _decoded(content, "cp1252", file), ["not UTF-8: read as Windows-1252"]
    if not text.strip():
        raise InputError(
            f"{file} is empty; expected column names in the first line and numbers below"
        )
    return text, notes


def _unpacked(file: Path) -> bytes:
    if not file.exists():
        raise InputError(f"{file} does not exist; give a CSV file as `data`")
    if file.is_dir():
        raise InputError(f"{file} is a folder; give a CSV file as `data`")
    try:
        if file.suffix == ".zip":
            with zipfile.ZipFile(file) as archive:
                names = [n for n in archive.namelist() if not n.endswith("/")]
                if len(names) != 1:
                    raise InputError(f"{file} holds {len(names)} files; expected one CSV file")
                return archive.read(names[0])
        return _PACKED.get(file.suffix, bytes)(file.read_bytes())
    except (zipfile.BadZipFile, lzma.LZMAError, EOFError, ValueError, zlib.error) as error:
        raise InputError(f"{file} cannot be unpacked: {error}") from None
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}") from None


def _decoded(content: bytes, encoding: str, file: Path) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{file} is not text in UTF-8 or {encoding} ({error.reason} at byte {error.start}); "
            "save it as CSV in UTF-8"
        ) from None
