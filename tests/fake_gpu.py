"""The choice of an implementation as on a GPU, without one."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch

from ganlstm_fast.ops import backends
from ganlstm_fast.ops.lstm import fit

MOST_ON_CHIP = {2: 1184, 4: 592}  # largest hidden size by bytes a number, on an H100
RUNS = (13000, 13000, "")  # the driver's CUDA, the kernels', no error


@dataclass
class OnGPU:
    """The attributes of a GPU's tensor that the choice of an implementation reads."""

    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cuda", 0))
    is_cuda: bool = True


def pretend(
    monkeypatch: pytest.MonkeyPatch,
    capability: tuple[int, int] = (9, 0),
    probed: tuple[int, int, str] = RUNS,
    library: backends._Library | None = None,
) -> None:
    """A GPU of a compute capability, with what the compiled kernels find out about it."""
    library = library or backends._Library(True, "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    monkeypatch.setitem(backends._LIBRARIES, "cuda", library)
    monkeypatch.setattr(backends, "_probe_gpu", lambda _: probed)
    monkeypatch.setattr(backends, "_warned", set())
    for module, name in (
        (backends, "_WHY_NOT_GPU"),
        (fit, "_FASTEST"),
        (fit, "_WHY_NOT_CUDA"),
    ):
        monkeypatch.setattr(module, name, {})

    def why_not_cuda(device: int, hidden: int, element: int) -> str:
        return "" if hidden <= MOST_ON_CHIP[element] else "has no room"

    monkeypatch.setattr(fit, "why_not_cuda", why_not_cuda)
