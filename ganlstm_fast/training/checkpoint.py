"""Files of a run: each is written whole or not at all."""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from ganlstm_fast.training.errors import InputError

CHECKPOINT = "checkpoint.pt"
FORMAT = "ganlstm_fast run"
VERSION = 1
KEYS = ("config", "data", "step", "history", "random", "model")


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``, which takes its place when the block ends.

    The block makes a file there, or a folder, which can only replace an empty folder or none.

    If the block raises, or the process is killed in it, ``path`` stays as it was.

    Raises:
        InputError: the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; choose another place or make room"
        ) from None
    finally:
        with suppress(OSError):
            shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink()


def save_checkpoint(path: Path, kind: str, content: dict[str, Any]) -> None:
    """Write ``content`` (tensors, numbers, strings and containers of them) to ``path``."""
    # Through an open file: torch.save names the archive's folder after a path that it is given.
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        torch.save({"format": FORMAT, "version": VERSION, "kind": kind, **content}, file)


def load_checkpoint(run: Path, kind: str | None = None) -> dict[str, Any]:
    """What :func:`save_checkpoint` wrote, on the CPU.

    Args:
        run: the run's folder, or the checkpoint itself.
        kind: that is expected; None takes any.

    Raises:
        InputError: no checkpoint there, one that cannot be read, or one of another kind.
    """
    path = run / CHECKPOINT if run.is_dir() else run
    if not path.exists():
        raise InputError(
            f"{path} does not exist; give the folder of a run of `ganlstm-fast train`"
            if path == run
            else f"{run} holds no {CHECKPOINT}; give the folder of a run of `ganlstm-fast train`"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except pickle.UnpicklingError:
        raise InputError(
            f"{path} is not a checkpoint of `ganlstm-fast train`: it is damaged, or holds objects "
            "other than tensors and numbers"
        ) from None
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        raise InputError(f"{path} is damaged: it cannot be read as a checkpoint") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(
            f"{path} is a checkpoint of something else; expected one of `ganlstm-fast train`"
        )
    if content["version"] != VERSION:
        raise InputError(
            f"{path} has format {content['version']}, this version reads {VERSION}; "
            "use the version of ganlstm_fast that wrote it"
        )
    if kind is not None and content["kind"] != kind:
        raise InputError(f"{path} is a checkpoint of a {content['kind']}; expected a {kind}")
    missing = [key for key in KEYS if key not in content]
    if missing:
        raise InputError(f"{path} is damaged: it lacks {', '.join(missing)}")
    return content


def add_to_data(path: Path, **values: Any) -> None:
    """Write ``values`` into the description of the data in the checkpoint ``path``."""
    content = load_checkpoint(path)
    content["data"] |= values
    save_checkpoint(path, content["kind"], content)
