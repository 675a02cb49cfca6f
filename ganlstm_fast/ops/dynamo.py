"""How ``torch.compile`` treats our layers: what Dynamo traces, and what stays out of graphs.

Dynamo takes about as long to import as torch itself, and many programs never need it, so we
register with it only when it is imported.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch import nn

Function = TypeVar("Function", bound=Callable[..., Any])

_DYNAMO = "torch._dynamo"


def let_dynamo_trace(layer: type[nn.Module]) -> None:
    """Have Dynamo trace instances of ``layer`` and its subclasses though torch's are refused.

    Dynamo refuses every instance of ``nn.RNN``, ``nn.GRU`` and ``nn.LSTM`` unless
    ``torch._dynamo.config.allow_rnn`` is set. The refusal is a bare ``isinstance``, before anything
    of the instance is read: no decorator and no attribute gets past it. The setting would change
    what becomes of the user's own ``nn.LSTM``, so it is on only while one of ours is wrapped.

    The method that does so is private. In a torch without it nothing is changed: the layer runs
    eagerly between two graphs, and with ``fullgraph=True`` Dynamo's message names the setting.
    """

    def patch() -> None:
        try:
            from torch._dynamo import config
            from torch._dynamo.variables.builder import VariableBuilder

            wrap_module = VariableBuilder.wrap_module
        except (ImportError, AttributeError):
            return
        if not hasattr(config, "allow_rnn"):
            return

        @functools.wraps(wrap_module)
        def wrap_allowed_module(self: Any, value: nn.Module) -> Any:
            if not isinstance(value, layer):
                return wrap_module(self, value)
            with config.patch(allow_rnn=True):
                return wrap_module(self, value)

        VariableBuilder.wrap_module = wrap_allowed_module

    _when_dynamo_is_imported(patch)


def outside_of_graphs(reason: str) -> Callable[[Function], Function]:
    """``torch.compiler.disable`` as a decorator, without the import of Dynamo that it costs."""

    def decorate(function: Function) -> Function:
        run = function

        @functools.wraps(function)
        def run_outside(*args: Any, **kwargs: Any) -> Any:
            # An exported program consists of the graph alone, so nothing can run outside of it.
            return (function if torch.compiler.is_exporting() else run)(*args, **kwargs)

        def disable() -> None:
            nonlocal run
            run = torch.compiler.disable(function, reason=reason)

        _when_dynamo_is_imported(disable)
        return run_outside  # type: ignore[return-value]

    return decorate


def _when_dynamo_is_imported(then: Callable[[], None]) -> None:
    if _DYNAMO in sys.modules:
        then()
    else:
        sys.meta_path.insert(0, _AtImport(then))


class _AtImport(MetaPathFinder):
    """Finds Dynamo as the other finders do, calls ``then`` after its import, and removes itself."""

    def __init__(self, then: Callable[[], None]) -> None:
        self.then = then

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname != _DYNAMO:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        # Back in the list: the module has been found, but not imported yet.
        sys.meta_path.insert(0, self)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_then(module: ModuleType) -> None:
                execute(module)
                sys.meta_path.remove(self)
                self.then()

            spec.loader.exec_module = execute_and_then  # type: ignore[method-assign]
        return spec
