from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

# Read by the compiled object once: memory of its own comes filled with NaN.
os.environ["GANLSTM_FAST_POISON"] = "1"
# Read by triton when it is imported, which other packages do as well.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from ganlstm_fast import backends

# A benchmark that a test starts is no worker of this run.
for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT"):
    os.environ.pop(name, None)

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


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For models that are too small for two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
