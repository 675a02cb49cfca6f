from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# Read by OpenMP when torch is imported, here and in the processes that tests start: threads that
# wait for work sleep. They would spin, and take the cores from the other workers of xdist.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch

# Read by the compiled object once: memory of its own comes filled with NaN.
os.environ["GANLSTM_FAST_POISON"] = "1"
# Read by triton when it is imported, which other packages do as well.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# Benchmarks that a test starts must not take themselves for workers of xdist.
for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT"):
    os.environ.pop(name, None)


class Failures:
    """Writes each failure's message to a file when it comes.

    pytest shows them at the end of the run, which a run on a GPU may not reach.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            with open(self.name, "a") as file:
                file.write(f"{report.nodeid} ({report.when})\n{report.longreprtext[-3000:]}\n\n")


def pytest_configure(config: pytest.Config) -> None:
    name = os.environ.get("GANLSTM_TEST_FAILURES")
    # The workers of xdist report to the process that started them.
    if name and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Failures(name))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On a GPU Triton's tests run last: warm_triton.py compiles their kernels meanwhile."""
    if torch.cuda.is_available():
        items.sort(key=lambda item: "triton" in item.name)


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
    """For models so small that a second thread slows them down."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tf32_off() -> Iterator[None]:
    """A GPU multiplies float32 in full precision, unless the test turns TF32 on."""
    from tests.gpu_cases import tf32

    with tf32(False):
        yield


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are made and saved, but empty: to draw one takes longer than a short training."""
    figure = pytest.importorskip("matplotlib.figure")
    monkeypatch.setattr(figure.Figure, "savefig", lambda self, file, **_: Path(file).touch())
