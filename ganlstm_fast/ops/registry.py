"""How operators are defined and reach their kernels: one mechanism for all families.

A family's ``operators.py`` has a function for each operator, decorated by :func:`operator`. Its
argument is a NamedTuple with the arguments of the schema (``schemas.py``), and its body makes what
the operator returns for tensors without data, as torch's "fake" kernels do. The decorated name is
an :class:`Operator`; calling it runs the kernels::

    class ScaleArguments(NamedTuple):
        x: Tensor
        factor: float
        impl: str = ""

    @operator(ScaleArguments, triton="...scale.triton_forward", overloads=("cuda", "triton"))
    def scale(a: ScaleArguments) -> Tensor:
        return torch.empty_like(a.x)

    scale(ScaleArguments(x, 2.0, impl="cpu"))  # kernels, below autograd
    scale.dispatch(ScaleArguments(...))        # torch.ops.ganlstm_fast.scale, with autograd

    @scale.differentiate
    def _(a: ScaleArguments) -> Tensor:        # what dispatch does where autograd records
        return ScaleFunction.apply(...)

Without ``differentiate`` the operator raises where autograd records: torch would only warn, and
give no gradient.

Kernels. On a CPU the compiled object implements the operator itself. A GPU has several
implementations: each has an overload of its own (``scale.cuda``, ``scale.triton``), and the
operator chooses by ``impl``. A family whose passes on a GPU are made of several operators has a
function for that instead: :meth:`Operator.on_gpu`.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import torch

from ganlstm_fast.ops import schemas
from ganlstm_fast.ops.functions import records

_BelowAutograd = torch._C._AutoDispatchBelowAutograd
_has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key

A = TypeVar("A", bound=NamedTuple)
R = TypeVar("R")


def _define() -> torch.library.Library:
    """Define all operators, for as long as the process runs.

    Raises:
        ImportError: modules of another copy of the package, or of an import that was undone, have
            defined them.
    """
    try:
        library = torch.library.Library(schemas.NAMESPACE, "DEF")
        for schema in schemas.SCHEMAS:
            library.define(schema)
    except RuntimeError as error:
        objects = [
            Path(p).parent for p in torch.ops.loaded_libraries if "_kernels_cpu" in Path(p).name
        ]
        raise ImportError(
            "ganlstm_fast: its operators are in this process already"
            f"{''.join(f', from {folder}' for folder in objects)}, and this import from "
            f"{Path(__file__).parents[1]} would define them a second time; start Python again"
        ) from error
    return library


# Kept for the life of the process: definitions and registrations end with the object.
LIBRARY = _define()


class Operator(Generic[A, R]):
    """An operator, called with the NamedTuple of its arguments, below autograd.

    Attributes:
        op: torch's operator, as ``torch.ops.ganlstm_fast`` has it.
        overloads: by implementation, what runs the arguments without ``impl``.
    """

    def __init__(
        self, kind: type[A], fake: Callable[[A], R], triton: str | None, overloads: Sequence[str]
    ) -> None:
        functools.update_wrapper(self, fake)
        self.name = fake.__name__
        self.kind = kind
        self.op = getattr(torch.ops.ganlstm_fast, self.name).default
        # What torch's operator calls: a call of a Python function less. The name is private.
        self._kernel = getattr(self.op, "_op", self.op)
        self.overloads: dict[str, Callable[..., R]] = {}
        self._fake, self._triton = fake, triton
        self._differentiated: Callable[[A], R] | None = None
        self._register(self.name, kind, lambda a: self.op(*a))
        qualified = f"{schemas.NAMESPACE}::{self.name}"
        torch.library.register_fake(qualified, lambda *given: fake(kind(*given)), lib=LIBRARY)
        for impl in overloads:
            self._add_overload(impl)
        if overloads:
            self.on_gpu(self._by_overload)

    def __call__(self, a: A) -> R:
        overload = self.overloads.get(a.impl)  # type: ignore[attr-defined]
        with _BelowAutograd():
            return self._kernel(*a) if overload is None else overload(*a[:-1])

    def dispatch(self, a: A) -> R:
        """Call torch's operator, with autograd. Graphs that are traced contain this call."""
        overload = self.overloads.get(a.impl)  # type: ignore[attr-defined]
        return self.op(*a) if overload is None else overload(*a[:-1])

    def triton(self, a: A) -> R:
        """The function of the operator's name in its Triton module, which is imported only now."""
        return getattr(importlib.import_module(str(self._triton)), self.name)(a)

    def differentiate(self, function: Callable[[A], R]) -> Callable[[A], R]:
        """Register what the operator does where autograd records (a decorator)."""
        self._differentiated = function
        return function

    def on_gpu(self, function: Callable[[A], R]) -> Callable[[A], R]:
        """Register what the operator does for CUDA tensors, by any implementation (a decorator)."""
        LIBRARY.impl(self.name, lambda *given: function(self.kind(*given)), "CUDA")
        return function

    def triton_on(self, device: str, library: torch.library.Library = LIBRARY) -> None:
        """Register Triton's kernel for a dispatch key: "CUDA", and "CPU" for its interpreter."""
        of_triton = functools.partial(self.kind, impl="triton")
        library.impl(f"{self.name}.triton", lambda *given: self.triton(of_triton(*given)), device)

    def _add_overload(self, impl: str) -> None:
        LIBRARY.define(schemas.overload(schemas.schema_of(self.name), impl))
        overload = getattr(getattr(torch.ops.ganlstm_fast, self.name), impl)
        self.overloads[impl] = overload
        kind, name = functools.partial(self.kind, impl=impl), f"{self.name}.{impl}"
        self._register(name, kind, lambda a: overload(*a[:-1]))
        # This registers faster than register_fake. Only an operator with tensors on several
        # devices needs the latter: `lengths` may be on the CPU.
        LIBRARY.impl(name, lambda *given: self._fake(kind(*given)), "Meta")
        if impl == "triton":
            self.triton_on("CUDA")

    def _register(self, name: str, kind: Callable[..., A], run: Callable[[A], R]) -> None:
        """What autograd does with the operator or an overload, which ``run`` calls."""
        LIBRARY.impl(name, lambda *given: self._autograd(kind(*given), run), "Autograd")

    def _autograd(self, a: A, run: Callable[[A], R]) -> R:
        lists = (value if isinstance(value, (list, tuple)) else (value,) for value in a)
        if not any(records(*values) for values in lists):
            with _BelowAutograd():
                return run(a)
        if self._differentiated is not None:
            return self._differentiated(a)
        raise RuntimeError(
            f"ganlstm_fast::{self.name} has no gradient; call it under torch.no_grad(), or use the "
            "function of ganlstm_fast that has one"
        )

    def _by_overload(self, a: A) -> R:
        impl = a.impl or self._default()  # type: ignore[attr-defined]
        if impl not in self.overloads:
            known = " or ".join(map(repr, self.overloads))
            raise RuntimeError(f"impl: expected {known} for tensors on a GPU, got {impl!r}")
        return self.overloads[impl](*a[:-1])

    def _default(self) -> str:
        """The first implementation that has a kernel here."""
        name, has_kernel = f"{schemas.NAMESPACE}::{self.name}", _has_kernel
        return next((impl for impl in self.overloads if has_kernel(f"{name}.{impl}", "CUDA")), "")


def operator(
    kind: type[A], *, triton: str | None = None, overloads: Sequence[str] = ()
) -> Callable[[Callable[[A], R]], Operator[A, R]]:
    """Make an :class:`Operator` of a function that says what it returns, see above.

    Args:
        kind: the NamedTuple of the arguments, as the schema has them.
        triton: the module with Triton's implementation, a function of the operator's name.
        overloads: a GPU's implementations; a call with no ``impl`` takes the first that was
            compiled.
    """
    return lambda fake: Operator(kind, fake, triton, overloads)
