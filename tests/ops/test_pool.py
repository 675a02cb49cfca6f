"""Memory that the CPU kernels use again: csrc/common/cpu/pool.h."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from ganlstm_fast import FastLSTM
from tests.marks import needs_cpu_kernels

pytestmark = needs_cpu_kernels


def saved(batch: int = 64) -> torch.Tensor:
    """The gates that a forward saves: 8 MiB at batch 64."""
    x, h = torch.zeros(64, batch, 4), torch.zeros(1, batch, 128)
    weights = [torch.zeros(512, 4), torch.zeros(512, 128)]
    return torch.ops.ganlstm_fast.lstm_forward(x, weights, h, h, None, True)[3]


def test_a_block_is_used_again_and_never_while_in_use() -> None:
    first = saved()
    assert torch.equal(first, saved())
    second = saved()
    addresses = {first.data_ptr(), second.data_ptr()}
    assert len(addresses) == 2
    view = first[0]
    del first, second
    third = saved()
    assert third.data_ptr() in addresses
    assert third.data_ptr() != view.data_ptr()
    assert torch.isfinite(view).all()


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_limit_and_empty_cache() -> None:
    """Each limit in a fork, where nothing else keeps the heap from shrinking.

    The first kernel of a process reads the limit, so it is set after the fork.
    """
    code = (
        "import os, torch, ganlstm_fast, tests.ops.test_pool as t\n"
        "for limit in ('0', '100', '400'):\n"
        "    if os.fork() == 0:\n"
        "        os.environ['GANLSTM_FAST_CACHE_MIB'] = limit\n"
        "        t.saved(2048)\n"
        "        before = t.resident_mib()\n"
        "        ganlstm_fast.empty_cache()\n"
        "        print(limit, before - t.resident_mib() > 200, flush=True)\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
    )
    environment = {**os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == ["0 False", "100 False", "400 True"], done.stderr


def gradient(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(32, 64, 8, generator=generator)
    layer = FastLSTM(8, 96)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    for _ in range(4):
        layer.zero_grad()
        x.requires_grad_()
        (grad,) = torch.autograd.grad(layer(x)[0].sum(), x, create_graph=True)
        (grad**2).sum().backward()
    return layer.weight_hh_l0.grad


def test_threads_do_not_share_a_block() -> None:
    expected = [gradient(seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for a, b in zip(pool.map(gradient, range(8)), expected, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork() -> None:
    """A DataLoader's worker is a fork of a process that has run kernels."""
    code = (
        "import os, torch, tests.ops.test_pool as t\n"
        "torch.set_num_threads(1)\n"  # OpenMP's threads do not survive a fork
        "a = t.gradient(0)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0 if torch.equal(t.gradient(0), a) else 1)\n"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    environment = {**os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
