"""Which implementation of an operator runs, and why.

Every operator takes ``impl=``. ``"auto"``, the default, picks the first implementation of its
family in ``FAMILIES`` that serves the call; a named one either runs or raises. Which of a GPU's
implementations of the LSTM is the fastest depends on its size: :mod:`ganlstm_fast.ops.lstm.fit`.

The default itself can be changed for a block of code with :func:`use_impl` and for a process with
the environment variable ``GANLSTM_FAST_IMPL`` (``reference``, or by family:
``lstm=cpu,spectral_norm=reference``). Such a default is a preference: it applies where that
implementation runs on the tensors' device, and ``"auto"`` decides elsewhere. A model is made on the
CPU, after all, before it is moved.
"""

from __future__ import annotations

import contextlib
import contextvars
import importlib.util
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ganlstm_fast.ops import registry  # noqa: F401  (defines the operators)

PACKAGE = Path(__file__).parents[1]
IMPLS = ("auto", "reference", "torch", "cpu", "cuda", "cell", "triton")
ENV_IMPL = "GANLSTM_FAST_IMPL"
ENV_CACHE_MIB = "GANLSTM_FAST_CACHE_MIB"
ENV_CPU_ISA = "GANLSTM_FAST_CPU_ISA"
CPU_ISAS = ("baseline", "avx2", "avx512", "avx512bf16")


@dataclass(frozen=True)
class _Library:
    """One shared object with compiled operators, loaded when this module is imported."""

    loaded: bool
    reason: str


@dataclass(frozen=True)
class _Implementation:
    """What one implementation of a family serves.

    ``proven``: what shows that it is right on the hardware that it is for. An implementation of
    which nothing shows it is never chosen by ``auto``. ``by_size``: whether it is the fastest
    depends on the size of a call, so that ``resolve`` does not choose it. ``timed``: whether
    results in ``benchmarks/results`` compare its speed with plain PyTorch's.
    """

    name: str
    what: str
    devices: tuple[str, ...] | None = None
    dtypes: tuple[torch.dtype, ...] | None = None
    library: str | None = None
    package: str | None = None
    proven: str | None = "make test"
    by_size: bool = False
    timed: bool = True


_FLOATS = (torch.float32, torch.float64, torch.bfloat16)
_HALVES_TOO = (*_FLOATS, torch.float16)
_NOT_FLOAT64 = (torch.float32, torch.float16, torch.bfloat16)
_ON_AN_H100 = "benchmarks/results/nvidia-h100-80gb-hbm3-sm-90/tests.md"

# In the order in which ``auto`` tries them.
FAMILIES: dict[str, tuple[_Implementation, ...]] = {
    "lstm": (
        _Implementation("cpu", "compiled CPU kernels", ("cpu",), _FLOATS, library="cpu"),
        _Implementation(
            "cuda",
            "one launch for all steps of a pass",
            ("cuda",),
            _NOT_FLOAT64,
            library="cuda",
            proven=_ON_AN_H100,
            by_size=True,
        ),
        _Implementation(
            "cell",
            "a product and one kernel for each step of a pass",
            ("cuda",),
            _HALVES_TOO,
            library="cuda",
            proven=_ON_AN_H100,
            by_size=True,
        ),
        _Implementation(
            "triton",
            "one Triton launch for all steps of a pass",
            ("cuda",),
            _NOT_FLOAT64,
            package="triton",
            proven=_ON_AN_H100,
            by_size=True,
        ),
        _Implementation("torch", "torch's LSTM at first order"),
        _Implementation("reference", "plain PyTorch, differentiable to any order"),
    ),
    "spectral_norm": (
        _Implementation("cpu", "compiled CPU kernels", ("cpu",), _FLOATS, library="cpu"),
        _Implementation(
            "cuda",
            "one launch for all weights of a pass",
            ("cuda",),
            _HALVES_TOO,
            library="cuda",
            proven=_ON_AN_H100,
            timed=False,
        ),
        _Implementation(
            "triton",
            "a few Triton launches for all weights of a pass",
            ("cuda",),
            _HALVES_TOO,
            package="triton",
            proven=_ON_AN_H100,
        ),
        _Implementation("reference", "plain PyTorch, differentiable to any order"),
    ),
    "gradient_penalty": (
        _Implementation("cpu", "compiled CPU kernels", ("cpu",), _FLOATS, library="cpu"),
        _Implementation(
            "cuda",
            "one launch a pass",
            ("cuda",),
            _HALVES_TOO,
            library="cuda",
            proven=_ON_AN_H100,
            timed=False,
        ),
        _Implementation(
            "triton",
            "one Triton launch or two a pass",
            ("cuda",),
            _HALVES_TOO,
            package="triton",
            proven=_ON_AN_H100,
        ),
        _Implementation("reference", "plain PyTorch, differentiable to any order"),
    ),
}

# Looked up once, into a set: Dynamo warns about a cached function in a call that it traces.
_INSTALLED = {
    this.package
    for known in FAMILIES.values()
    for this in known
    if this.package is not None and importlib.util.find_spec(this.package) is not None
}


def _load(name: str) -> _Library:
    path = PACKAGE / f"_kernels_{name}.so"
    if not path.exists():
        needs = {"cpu": "a C++17 compiler", "cuda": "nvcc"}[name]
        cure = f"reinstall ganlstm_fast where {needs} is found"
        if PACKAGE.with_name("setup.py").exists():
            cure = (
                f"{PACKAGE.parent} is the source tree: start Python in another folder, or install "
                f"with pip install -e . where {needs} is found"
            )
        return _Library(False, f"the {name} kernels were not built ({cure})")
    if name == "cuda" and torch.version.cuda is None:
        return _Library(False, "this torch is built without CUDA")
    if name == "cuda" and not torch.cuda.is_available():
        return _Library(False, "torch sees no CUDA device")
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        return _Library(False, f"{path.name} does not load: {str(error).splitlines()[0]}")
    return _Library(True, "")


def _check_environment() -> None:
    """Check variables that the kernels read themselves, without an error for a wrong value."""
    cache = os.environ.get(ENV_CACHE_MIB, "")
    if cache and not cache.isdecimal():
        raise ValueError(f"{ENV_CACHE_MIB}: expected a number of MiB, got {cache!r}")
    isa = os.environ.get(ENV_CPU_ISA, "")
    if isa and isa not in CPU_ISAS:
        raise ValueError(f"{ENV_CPU_ISA}: expected one of {', '.join(CPU_ISAS)}, got {isa!r}")


_check_environment()
_LIBRARIES = {name: _load(name) for name in ("cpu", "cuda")}


def is_loaded(name: str) -> bool:
    """Whether the compiled object of this name ("cpu", "cuda") is loaded."""
    return _LIBRARIES[name].loaded


def cpu_isa() -> str | None:
    """The instruction set of the CPU kernels: one of ``CPU_ISAS``; None without the kernels.

    It is the best that the processor has; ``GANLSTM_FAST_CPU_ISA`` names a lower one.
    """
    return torch.ops.ganlstm_fast.cpu_isa() if is_loaded("cpu") else None


def empty_cache() -> None:
    """Free the memory that the kernels hold for their next call.

    They keep up to ``GANLSTM_FAST_CACHE_MIB`` (512 by default, 0 for none) of what they have
    allocated on the CPU, since fresh memory costs as much time as many a kernel.
    """
    if is_loaded("cpu"):
        torch.ops.ganlstm_fast.empty_cache()


def _parse_default(text: str) -> dict[str, str]:
    """``"cpu"`` or ``"lstm=cpu,spectral_norm=reference"`` as a choice for each family."""
    choice = dict.fromkeys(FAMILIES, "auto")
    for part in filter(None, (p.strip() for p in text.split(","))):
        family, _, impl = part.rpartition("=")
        choice.update(_checked_choice(impl, family or None, ENV_IMPL))
    return choice


def _checked_choice(impl: str, family: str | None, argument: str) -> dict[str, str]:
    if impl not in IMPLS:
        raise ValueError(f"{argument}: expected one of {', '.join(IMPLS)}, got {impl!r}")
    if family is not None and family not in FAMILIES:
        raise ValueError(f"{argument}: expected a family of {', '.join(FAMILIES)}, got {family!r}")
    return dict.fromkeys([family] if family else FAMILIES, impl)


_choice = _parse_default(os.environ.get(ENV_IMPL, ""))


@contextlib.contextmanager
def use_impl(impl: str, family: str | None = None) -> Iterator[None]:
    """Make ``impl`` the default of every operator called in the ``with`` block.

    Args:
        impl: ``"auto"``, ``"reference"``, ``"torch"``, ``"cpu"``, ``"cuda"``, ``"cell"`` or
            ``"triton"``.
        family: only this family (``"lstm"``, ``"spectral_norm"``, ``"gradient_penalty"``).

    It is a preference: an operator that has no such implementation, or not on the device of its
    tensors, chooses as by ``"auto"``. On a device where ``impl`` does run, a call that it cannot
    serve (another dtype, kernels that were not built) raises ``RuntimeError``. The choice is made
    when the forward runs; a backward uses what its forward chose. It holds for the whole process,
    not for one thread.
    """
    global _choice
    before = _choice
    _choice = {**_choice, **_checked_choice(impl, family, "impl")}
    try:
        yield
    finally:
        _choice = before


_ahead = contextvars.ContextVar("second_order_ahead", default=False)


@contextlib.contextmanager
def second_order_ahead() -> Iterator[None]:
    """Tell ``auto`` that the gradients of calls in the block will be differentiated again.

    A forward cannot know that, and where another implementation is the fastest at first order, its
    forward would have to be computed again by one that has a second order.
    """
    token = _ahead.set(True)
    try:
        yield
    finally:
        _ahead.reset(token)


def is_second_order_ahead() -> bool:
    return _ahead.get()


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _why_not(this: _Implementation, device: torch.device, dtype: torch.dtype) -> str | None:
    """The reason why ``this`` cannot serve a call, or None."""
    kind = device.type
    if this.devices is not None and kind not in this.devices:
        return f"runs on {_listed(this.devices)}, not on {kind}"
    if this.library is not None and not _LIBRARIES[this.library].loaded:
        return _LIBRARIES[this.library].reason
    if this.package is not None and this.package not in _INSTALLED:
        return f"needs the package {this.package}"
    if this.devices is not None and kind == "cuda":
        reason = why_not_gpu(device.index)
        if reason is not None:
            return reason
    if this.dtypes is not None and dtype not in this.dtypes:
        *names, last = (str(d).removeprefix("torch.") for d in (*this.dtypes, dtype))
        return f"takes {_listed(names)}, not {last}"
    return None


# By the number of a GPU. A dict, because Dynamo warns about a cached function in a traced call.
_WHY_NOT_GPU: dict[int, str | None] = {}
# The oldest driver for each major version of CUDA. The runtime linked into our object needs it.
_DRIVERS = {12: "525", 13: "580"}


def why_not_gpu(index: int | None) -> str | None:
    """The reason why no kernel of ours runs on a GPU, or None. The current GPU has no ``index``.

    While a graph is traced, which cannot ask a GPU, one that was not looked at before passes.
    """
    if index in _WHY_NOT_GPU:
        return _WHY_NOT_GPU[index]
    if torch.compiler.is_compiling():
        return None
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    if index is None:
        return why_not_gpu(torch.cuda.current_device())
    reason, will_stay = _look_at_gpu(index)
    if will_stay:
        _WHY_NOT_GPU[index] = reason
    return reason


def _look_at_gpu(index: int) -> tuple[str | None, bool]:
    """The reason or None, and whether it stays the same while the process runs."""
    major, minor = torch.cuda.get_device_capability(index)
    if major < 8:
        needs = "needs a GPU of compute capability 8.0 or newer"
        return f"{needs}, this one has {major}.{minor}", True
    if not is_loaded("cuda"):
        return None, True  # Triton has no such library.
    driver, runtime, error = _probe_gpu(index)
    if not error:
        return None, True
    if driver // 1000 < runtime // 1000:
        needed = _DRIVERS.get(runtime // 1000)
        version = f" ({needed} or newer)" if needed else ""
        return (
            f"needs a driver for CUDA {_cuda_version(runtime)}{version}, this one is for CUDA "
            f"{_cuda_version(driver)}; update it, or build ganlstm_fast with an older nvcc"
        ), True
    # An error such as "out of memory" can go away: another process may have filled the GPU.
    return f"does not run on this GPU: {error}", "no kernel image" in error


def _probe_gpu(index: int) -> tuple[int, int, str]:
    return torch.ops.ganlstm_fast.probe_gpu(index)


def _cuda_version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


_warned: set[str] = set()


def warn_once(message: str) -> None:
    """A RuntimeWarning, the first time that this message comes."""
    if message not in _warned and not torch.compiler.is_compiling():
        _warned.add(message)
        warnings.warn(message, RuntimeWarning, stacklevel=4)


def is_auto(family: str, impl: str | None, device: torch.device) -> bool:
    """Whether ``resolve`` may choose the implementation for a call on ``device``."""
    return (_preferred(family, device) if impl is None else impl) == "auto"


def described(family: str, impl: str | None) -> str:
    """What named the implementation, for an error message: the argument or a default."""
    if impl is None:
        return f"the default impl {_choice[family]!r}, of use_impl or {ENV_IMPL},"
    return f"impl={impl!r}"


def _preferred(family: str, device: torch.device) -> str:
    """The default in force, where it applies on ``device``; else "auto"."""
    impl = _choice[family]
    for this in FAMILIES[family] if impl != "auto" else ():
        if this.name == impl and (this.devices is None or device.type in this.devices):
            return impl
    return "auto"


def resolve(family: str, impl: str | None, device: torch.device | str, dtype: torch.dtype) -> str:
    """The name of the implementation that serves a call of ``family``.

    Args:
        impl: the caller's ``impl=`` argument; None means the default in force.

    Raises:
        ValueError: ``impl`` is not a known name.
        RuntimeError: the named implementation does not serve this call.
    """
    if isinstance(device, str):
        device = torch.device(device)
    who = described(family, impl)
    if impl is None:
        impl = _preferred(family, device)
    elif impl not in IMPLS:
        raise ValueError(f"impl: expected one of {', '.join(IMPLS)}, got {impl!r}")
    known = FAMILIES[family]
    if impl != "auto":
        found = [this for this in known if this.name == impl]
        reason = (
            _why_not(found[0], device, dtype)
            if found
            else f"{family} has {', '.join(this.name for this in known)}"
        )
        if reason is not None:
            raise RuntimeError(f"{who} cannot run {family}: {reason}")
        return impl
    name = chosen_by_auto(family, device, dtype)
    if name in ("torch", "reference"):
        # Warn about a broken installation, not about a dtype that has no kernel.
        reason = _why_not_installed(device)
        if reason is not None:
            warn_once(f"ganlstm_fast runs {family} without its own kernels: {reason}")
    return name


def chosen_by_auto(family: str, device: torch.device, dtype: torch.dtype) -> str:
    """What ``resolve`` returns for "auto"."""
    for this in FAMILIES[family]:
        if this.proven and not this.by_size and _why_not(this, device, dtype) is None:
            return this.name
    raise RuntimeError(f"no implementation of {family} serves {dtype} on {device}")


def _why_not_installed(device: torch.device) -> str | None:
    """The reason why the compiled kernels for this device do not run, or None."""
    if device.type in _LIBRARIES and not is_loaded(device.type):
        return _LIBRARIES[device.type].reason
    return why_not_gpu(device.index) if device.type == "cuda" else None


def serving(
    family: str, device: torch.device | str, dtype: torch.dtype, *, proven_only: bool = False
) -> list[str]:
    """The implementations that serve a call, or those of them that ``auto`` may choose."""
    device = torch.device(device)
    return [
        this.name
        for this in FAMILIES[family]
        if _why_not(this, device, dtype) is None and (this.proven or not proven_only)
    ]


def names(family: str, device: torch.device) -> list[str]:
    """The implementations for a device, in the order in which ``auto`` tries them."""
    known = FAMILIES[family]
    return [this.name for this in known if this.devices is None or device.type in this.devices]


def what(family: str, name: str) -> str:
    """What an implementation is, in a few words."""
    return next(this.what for this in FAMILIES[family] if this.name == name)


def is_timed(family: str, name: str) -> bool:
    """Whether results compare the speed of an implementation with plain PyTorch's."""
    return next(this.timed for this in FAMILIES[family] if this.name == name)


def why_not_chosen(family: str, name: str, device: torch.device, dtype: torch.dtype) -> str:
    """The reason why ``auto`` does not choose an implementation."""
    this = next(this for this in FAMILIES[family] if this.name == name)
    reason = _why_not(this, device, dtype)
    if reason is None and not this.proven:
        return f"{this.what}; nothing shows yet that it is right on hardware"
    return reason or f"{this.what}; by name only"
