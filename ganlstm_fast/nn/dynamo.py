"""``torch.compile`` for layers that are subclasses of torch's recurrent ones.

Dynamo refuses every instance of ``nn.RNN``, ``nn.GRU`` and ``nn.LSTM`` unless
``torch._dynamo.config.allow_rnn`` is set. The refusal is a bare ``isinstance`` before anything of
the instance is read, so that no decorator and no attribute of a class gets past it; and the setting
would change what becomes of the user's own ``nn.LSTM``, which Dynamo unrolls over time where it
takes it. So the setting is on only while Dynamo wraps an instance of our class.

``VariableBuilder.wrap_module`` is private. Where a torch has no such name, nothing is done here:
without ``fullgraph=True`` the layer then runs eagerly between two graphs, with it Dynamo's own
message says to set ``allow_rnn``.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from torch import nn

_BUILDER = "torch._dynamo.variables.builder"


def let_dynamo_trace(layer: type[nn.Module]) -> None:
    """Have Dynamo trace ``layer`` and its subclasses, now or when Dynamo is imported."""
    if _BUILDER in sys.modules:
        _patch(sys.modules[_BUILDER], layer)
    else:
        # Dynamo takes as long to import as torch itself; most programs never need it.
        sys.meta_path.insert(0, _BuilderFinder(layer))


def _patch(builder: ModuleType, layer: type[nn.Module]) -> None:
    variable_builder = getattr(builder, "VariableBuilder", None)
    wrap_module = getattr(variable_builder, "wrap_module", None)
    config = getattr(builder, "config", None)
    if wrap_module is None or not hasattr(config, "allow_rnn"):
        return

    @functools.wraps(wrap_module)
    def wrap_allowed_module(self: Any, value: nn.Module) -> Any:
        if not isinstance(value, layer):
            return wrap_module(self, value)
        with config.patch(allow_rnn=True):
            return wrap_module(self, value)

    variable_builder.wrap_module = wrap_allowed_module


class _BuilderFinder(MetaPathFinder):
    """Finds nothing itself: it sees the import of Dynamo's builder, once."""

    def __init__(self, layer: type[nn.Module]) -> None:
        self.layer = layer

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname != _BUILDER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_patch(module: ModuleType) -> None:
                execute(module)
                _patch(module, self.layer)

            spec.loader.exec_module = execute_and_patch  # type: ignore[method-assign]
        return spec
