"""What code written for torch's layers expects of a layer besides its numbers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

__all__ = ["NotQuantized"]


if TYPE_CHECKING:
    Forward = TypeVar("Forward", bound=Callable[..., Any])

    def called_as(forward: Forward) -> Callable[[Callable[..., Any]], Forward]:
        """Decorate ``__call__`` in the body of a layer, to be called as its ``forward`` is.

        Torch declares ``nn.Module.__call__`` as a callable that takes and returns anything. Only
        type checkers and editors read this: at run time the method is torch's, unchanged.
        """


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
