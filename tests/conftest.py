from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import ganlstm_fast  # noqa: F401  (loads the operators before a test asks what is there)
from ganlstm_fast import backends

needs_cpu_kernels = pytest.mark.skipif(
    not backends.is_loaded("cpu"), reason="built without the CPU kernels"
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def poison() -> Iterator[None]:
    """Memory that an operator allocates and does not write comes back as NaN."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(before)
