"""Which implementation runs: use_impl, the environment variable, explain."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings

import pytest
import torch

import ganlstm_fast
from ganlstm_fast import explain, use_impl
from ganlstm_fast.models import DCGAN
from ganlstm_fast.ops import backends
from ganlstm_fast.ops.backends import resolve
from tests.marks import needs_cpu_kernels


@needs_cpu_kernels
def test_auto_takes_the_kernels_for_what_they_serve() -> None:
    assert resolve("lstm", None, "cpu", torch.float32) == "cpu"
    assert resolve("lstm", "auto", "cpu", torch.float64) == "cpu"
    assert resolve("lstm", None, "cpu", torch.bfloat16) == "cpu"
    assert resolve("lstm", None, "cpu", torch.float16) == "torch"
    assert resolve("spectral_norm", None, "cpu", torch.bfloat16) == "cpu"
    assert resolve("spectral_norm", None, "cpu", torch.float16) == "reference"


def test_use_impl_nests_and_is_undone() -> None:
    before = resolve("lstm", None, "cpu", torch.float32)
    with use_impl("reference"):
        assert resolve("lstm", None, "cpu", torch.float32) == "reference"
        with use_impl("torch", "lstm"):
            assert resolve("lstm", None, "cpu", torch.float32) == "torch"
            assert resolve("spectral_norm", None, "cpu", torch.float32) == "reference"
        assert resolve("lstm", None, "cpu", torch.float32) == "reference"
        assert resolve("lstm", "torch", "cpu", torch.float32) == "torch"
    with pytest.raises(KeyError), use_impl("reference"):
        raise KeyError
    assert resolve("lstm", None, "cpu", torch.float32) == before


def test_what_cannot_be_served_raises() -> None:
    with pytest.raises(ValueError, match=r"impl: expected one of auto, .*, got 'fast'"):
        resolve("lstm", "fast", "cpu", torch.float32)
    with pytest.raises(ValueError, match="impl: expected one of"), use_impl("fast"):
        pass
    with pytest.raises(ValueError, match=r"expected a family of lstm, .*, got 'gru'"):
        use_impl("reference", "gru").__enter__()
    with pytest.raises(RuntimeError, match=r"impl='cpu' cannot run lstm: runs on cpu, not on cuda"):
        resolve("lstm", "cpu", "cuda", torch.float32)
    with pytest.raises(RuntimeError, match="impl='cuda' cannot run lstm: runs on cuda, not on cpu"):
        resolve("lstm", "cuda", "cpu", torch.float32)
    with pytest.raises(RuntimeError, match="cannot run gradient_penalty: gradient_penalty has cpu"):
        resolve("gradient_penalty", "cell", "cuda", torch.float32)


@needs_cpu_kernels
def test_a_dtype_without_kernel_raises_when_named() -> None:
    message = "takes float32, float64 and bfloat16, not float16"
    with pytest.raises(RuntimeError, match=message):
        resolve("lstm", "cpu", "cpu", torch.float16)
    assert message in explain(dtype=torch.float16)


def test_missing_kernels_warn_once_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = backends._Library(False, "the cpu kernels were not built (reinstall)")
    monkeypatch.setitem(backends._LIBRARIES, "cpu", missing)
    monkeypatch.setattr(backends, "_warned", set())
    with pytest.warns(RuntimeWarning, match=r"without its own kernels: .* \(reinstall\)"):
        assert resolve("lstm", None, "cpu", torch.float32) == "torch"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resolve("lstm", None, "cpu", torch.float32) == "torch"


def test_a_default_that_does_not_run_on_a_device_is_none_there() -> None:
    """Models are built on the CPU even if they will run on a GPU."""
    before = resolve("lstm", None, "cpu", torch.float32)
    for impl in ("cuda", "cell", "triton"):
        with use_impl(impl):
            assert resolve("lstm", None, "cpu", torch.float32) == before
    with use_impl("torch"):
        assert resolve("lstm", None, "cpu", torch.float32) == "torch"
        assert resolve("spectral_norm", None, "cpu", torch.float16) == "reference"


def test_a_model_is_made_under_a_default_for_a_gpu() -> None:
    """The layers normalise once when they are made."""
    with use_impl("cuda"):
        gan = DCGAN(size=28, channels=1, noise=4, width=4)
        gan.critic(gan(gan.generator.noise(2)))


@needs_cpu_kernels
def test_explain_has_the_choice_and_the_others_below_it() -> None:
    assert explain().splitlines() == [
        f"lstm: cpu, compiled CPU kernels for {backends.cpu_isa()}",
        "  torch: torch's LSTM at first order; by name only",
        "  reference: plain PyTorch, differentiable to any order; by name only",
        f"spectral_norm: cpu, compiled CPU kernels for {backends.cpu_isa()}",
        "  reference: plain PyTorch, differentiable to any order; by name only",
        f"gradient_penalty: cpu, compiled CPU kernels for {backends.cpu_isa()}",
        "  reference: plain PyTorch, differentiable to any order; by name only",
    ]
    with use_impl("torch", "lstm"):
        assert explain().startswith("lstm: torch (chosen by you)")
    with use_impl("cpu", "lstm"):
        assert "raises" in explain(dtype=torch.float16).splitlines()[0]


def test_explain_without_a_gpu_says_so_and_warns_of_nothing() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lines = explain("cuda").splitlines()
    assert lines[0] == "lstm: torch, torch's LSTM at first order"
    assert lines[1].startswith("  cuda: ")


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("reference", "reference reference"),
        ("lstm=torch", "torch auto"),
        ("lstm=torch, spectral_norm=reference", "torch reference"),
        ("", "auto auto"),
    ],
)
def test_environment_variable(value: str, expected: str) -> None:
    code = (
        "from ganlstm_fast.ops import backends as b;"
        "print(b._choice['lstm'], b._choice['spectral_norm'])"
    )
    done = run_python(code, GANLSTM_FAST_IMPL=value)
    assert done.stdout.strip() == expected, done.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("GANLSTM_FAST_IMPL", "GANLSTM_FAST_IMPL: expected one of auto, reference"),
        ("GANLSTM_FAST_CPU_ISA", "GANLSTM_FAST_CPU_ISA: expected one of baseline, avx2, avx512,"),
        ("GANLSTM_FAST_CACHE_MIB", "GANLSTM_FAST_CACHE_MIB: expected a number of MiB"),
    ],
)
def test_environment_variable_with_a_wrong_value(name: str, message: str) -> None:
    done = run_python("import ganlstm_fast", **{name: "quick"})
    assert done.returncode != 0
    assert message in done.stderr


def test_a_second_import_says_what_to_do() -> None:
    code = (
        "import sys, importlib, ganlstm_fast as first;"
        "importlib.reload(first); importlib.reload(first.ops.backends);"
        "[sys.modules.pop(m) for m in list(sys.modules) if m.startswith('ganlstm_fast')];"
        "import ganlstm_fast"
    )
    done = run_python(code)
    assert done.returncode == 1, done
    message = "ganlstm_fast: its operators are in this process already.*; start Python again"
    assert re.search(f"ImportError: {message}", done.stderr)


@needs_cpu_kernels
def test_instruction_set() -> None:
    code = (
        "from ganlstm_fast import explain; from ganlstm_fast.ops import backends;"
        "print(backends.cpu_isa(), explain())"
    )
    done = run_python(code, GANLSTM_FAST_CPU_ISA="baseline")
    assert done.stdout.startswith("baseline lstm: cpu, compiled CPU kernels for baseline")
    assert backends.cpu_isa() in backends.CPU_ISAS


@needs_cpu_kernels
def test_the_steps_have_no_gradient() -> None:
    z, weight = torch.zeros(1, 1, 1, 4), torch.zeros(1, 4, 1, requires_grad=True)
    h, c, y = (torch.zeros(1, 1, 1) for _ in range(3))
    arguments = (z, None, weight, None, 0, 1, h, c, y.unsqueeze(0), None, None, False, "cell")
    with pytest.raises(RuntimeError, match="ganlstm_fast::lstm_forward_steps has no gradient"):
        torch.ops.ganlstm_fast.lstm_forward_steps(*arguments)


def test_public_names() -> None:
    for name in ganlstm_fast.__all__:
        assert getattr(ganlstm_fast, name) is not None
