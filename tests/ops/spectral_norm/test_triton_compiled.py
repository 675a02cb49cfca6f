"""The spectral norm's Triton kernels compiled for GPUs that are not here."""

from __future__ import annotations

import pytest

pytest.importorskip("triton")

from tests.triton_tools import TRITONS, compile_with

COMPILE = """
import sys
import torch
from ganlstm_fast.ops.spectral_norm import operators
from tests.triton_tools import by_triton, compile_only, resources

globals().update(vars(by_triton(operators)))


def all_passes(dtype, *shapes):
    dims = [k % len(shape) for k, shape in enumerate(shapes)]
    w = [torch.zeros(shape, dtype=dtype) for shape in shapes]
    u = [t.new_zeros(t.shape[dim]) for t, dim in zip(w, dims)]
    v = [t.new_zeros(t.numel() // t.shape[dim]) for t, dim in zip(w, dims)]
    spectral_norm_forward_(w, u, v, dims, 3, 1e-12)
    spectral_norm_forward(w, u, v, dims, 1, 1e-12, False)
    normalized, vectors = spectral_norm_forward(w, u, v, dims, 1, 1e-12, True)
    saved = (normalized, vectors)
    _, inner = spectral_norm_backward(w, *saved, dims, 1e-12)
    spectral_norm_double_backward(w, w, *saved, inner, dims, 1e-12, [True, True])


for dtype, architecture in (word.split(":") for word in sys.argv[1:]):
    found, element = compile_only(int(architecture)), getattr(torch, dtype)
    all_passes(element, (64, 3, 4, 4))
    first = dict(found)
    all_passes(element, (1, 1), (17, 33), (5, 7, 3), *[(3, 16)] * 70)
    assert found == first, "compiled again for other weights"
    for this, name in found.items():
        has_vectors = any(v in this.asm["ptx"] for v in (".v2.b", ".v4.b"))
        print(dtype, name, *resources(this), has_vectors)
"""


# Both Tritons, sm_80 and sm_90, and each dtype of the sums; the kernels do not ask for the GPU.
COMPILED = {
    "installed": ["float32:90", "bfloat16:80", "float64:90"],
    "lowest": ["bfloat16:80", "float64:90"],
}


@pytest.mark.parametrize("triton", TRITONS)
def test_compiles_without_a_gpu(triton: str) -> None:
    """One set of kernels serves all weights, and spills no registers.

    Kernels that go through arrays element by element load several at a time.
    """
    lines = compile_with(triton, COMPILE, *COMPILED[triton])
    assert len({(dtype, name) for dtype, name, *_ in lines}) == 7 * len(COMPILED[triton])
    for _, name, shared, stack, has_vectors in lines:
        assert int(shared) <= 48 << 10, name
        assert int(stack) == 0, f"{name} has spilled registers"
        if "backward" in name or "inner" in name:
            assert has_vectors == "True", name
