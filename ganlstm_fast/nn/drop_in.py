"""What code that takes a layer for torch's looks at besides its numbers."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

__all__ = ["NotQuantized", "with_arguments_of"]


def with_arguments_of(torchs: Callable[..., Any]) -> Callable[[Any], Any]:
    """Decorate an ``__init__(self, *args, ..., **kwargs)`` to show the arguments of ``torchs``.

    Its own come after them, by keyword. ``torch.nn.utils.skip_init`` looks for ``device`` there,
    and ``help`` prints it.
    """

    def decorate(init: Any) -> Any:
        own, theirs = (inspect.signature(f).parameters.values() for f in (init, torchs))
        before = [p for p in theirs if p.kind is not p.KEYWORD_ONLY and p.name != "self"]
        keywords = [p for p in (*theirs, *own) if p.kind is p.KEYWORD_ONLY]
        init.__signature__ = inspect.Signature([next(iter(own)), *before, *keywords])
        return init

    return decorate


class NotQuantized:
    """The attribute ``qconfig`` of a layer that ``torch.ao.quantization`` does not convert.

    ``quantize_dynamic(model, {nn.LSTM})`` looks layers up by their exact class and passes over
    ours, which have kernels in floating point only. It sets this attribute on each module that it
    visits, which is where the layer can say so.

    Args:
        torchs: the class that has a quantized form.
        first: what to do before ``to_torch``.
    """

    def __init__(self, torchs: str, first: str = "") -> None:
        self.cure = f"{first}ganlstm_fast.to_torch(model) before quantizing makes it an {torchs}"

    def __get__(self, module: nn.Module | None, owner: type | None = None) -> Any:
        if module is None or "qconfig" not in vars(module):
            raise AttributeError("qconfig")
        return vars(module)["qconfig"]

    def __set__(self, module: nn.Module, value: Any) -> None:
        vars(module)["qconfig"] = value
        name = type_before_parametrizations(module).__name__
        warnings.warn(
            f"ganlstm_fast: {name} has no quantized form and stays as it is; "
            f"{self.cure}, which has one",
            stacklevel=3,
        )

    def __delete__(self, module: nn.Module) -> None:
        del vars(module)["qconfig"]
