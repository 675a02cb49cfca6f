"""PyTorch's own inputs of nn.LSTM and nn.LSTMCell, errors included, for the drop-in layers.

test_module_inputs.py runs these in a process of their own: to import torch.testing's modules
changes settings of torch for the whole process.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing._internal.common_modules import ModuleErrorEnum, ModuleInfo, module_db
from torch.utils._pytree import tree_leaves

import ganlstm_fast as gf
from tests.numerics import assert_close_to_reference

OURS = {nn.LSTM: gf.FastLSTM, nn.LSTMCell: gf.FastLSTMCell}
INFOS = [info for info in module_db if info.module_cls in OURS]


def test_both_layers_have_inputs() -> None:
    assert {info.module_cls for info in INFOS} == set(OURS)


def _runs(
    cls: type[nn.Module], info: ModuleInfo, dtype: torch.dtype, training: bool
) -> Iterator[tuple[object, list[Tensor | None]]]:
    """Each input, and the outputs and all gradients of ``cls``, from the same random numbers."""
    torch.manual_seed(0)
    options = {"device": "cpu", "dtype": dtype, "requires_grad": True, "training": training}
    for sample in info.module_inputs_func(info, **options):
        torch.manual_seed(1)
        constructor, forward = sample.constructor_input, sample.forward_input
        module = cls(*constructor.args, **constructor.kwargs).to(dtype).train(training)
        torch.manual_seed(2)  # of dropout
        outputs = tree_leaves(module(*forward.args, **forward.kwargs))
        outputs = [t for t in outputs if isinstance(t, Tensor) and t.is_floating_point()]
        given = [t for t in tree_leaves((forward.args, forward.kwargs)) if _has_gradient(t)]
        loss = sum(output.sin().sum() for output in outputs)
        grads = torch.autograd.grad(loss, [*given, *module.parameters()], allow_unused=True)
        yield (constructor.args, constructor.kwargs), [*outputs, *grads]


def _has_gradient(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("info", INFOS, ids=lambda info: info.name)
def test_inputs(info: ModuleInfo, training: bool) -> None:
    count = 0
    truths, rivals, ours = (
        _runs(cls, info, dtype, training)
        for cls, dtype in (
            (info.module_cls, torch.float64),
            (info.module_cls, torch.float32),
            (OURS[info.module_cls], torch.float32),
        )
    )
    for (case, truth), (_, rival), (_, out) in zip(truths, rivals, ours, strict=True):
        assert_close_to_reference(out, truth, rival, str(case))
        count += 1
    assert count >= 2


ERRORS = [
    pytest.param(info, error, id=f"{info.name}-{index}")
    for info in INFOS
    for index, error in enumerate(
        info.module_error_inputs_func(
            info, device="cpu", dtype=torch.float32, requires_grad=False, training=True
        )
    )
]


@pytest.mark.parametrize(("info", "error"), ERRORS)
def test_errors_have_torchs_type_and_words(info: ModuleInfo, error: Any) -> None:
    constructor = error.module_error_input.constructor_input
    at_construction = error.error_on == ModuleErrorEnum.CONSTRUCTION_ERROR

    def run() -> None:
        module = OURS[info.module_cls](*constructor.args, **constructor.kwargs)
        if not at_construction:
            forward = error.module_error_input.forward_input
            module(*forward.args, **forward.kwargs)

    with pytest.raises(error.error_type, match=error.error_regex):
        run()
