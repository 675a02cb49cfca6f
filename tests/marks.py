"""Conditions under which a test is skipped."""

import pytest

from ganlstm_fast.ops import backends

needs_cpu_kernels = pytest.mark.skipif(
    not backends.is_loaded("cpu"), reason="built without the CPU kernels"
)
