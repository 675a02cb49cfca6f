"""Which implementation of an operator runs, and why.

Every operator takes ``impl=``. ``"auto"``, the default, picks the first implementation of its
family in ``_FAMILIES`` that serves the call; a named one either runs or raises.
The default itself can be changed for a block of code with :func:`use_impl` and for a process with
the environment variable ``GANLSTM_FAST_IMPL`` (``reference``, or by family:
``lstm=cpu,spectral_norm=reference``).
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

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

    ``proven``: it has passed the test suite on the hardware that it is for. An implementation that
    has not is never chosen by ``auto``.
    """

    name: str
    what: str
    devices: tuple[str, ...] | None = None
    dtypes: tuple[torch.dtype, ...] | None = None
    library: str | None = None
    package: str | None = None
    proven: bool = True


_FLOATS = (torch.float32, torch.float64, torch.bfloat16)

# In the order in which ``auto`` tries them.
_FAMILIES: dict[str, tuple[_Implementation, ...]] = {
    "lstm": (
        _Implementation("cpu", "compiled CPU kernels", ("cpu",), _FLOATS, library="cpu"),
        _Implementation(
            "triton",
            "one Triton launch for all steps of a pass",
            ("cuda",),
            (torch.float32, torch.float16, torch.bfloat16),
            library="cpu",  # has the operators' schemas
            package="triton",
            proven=False,
        ),
        _Implementation(
            "cuda",
            "one launch for all steps of a pass, over thread-block clusters",
            ("cuda",),
            (torch.float32, torch.float16, torch.bfloat16),
            library="cuda",
            proven=False,
        ),
        _Implementation(
            "cell",
            "a product and one kernel for each step of a pass",
            ("cuda",),
            (torch.float32, torch.float64, torch.float16, torch.bfloat16),
            library="cuda",
            proven=False,
        ),
        _Implementation(
            "torch", "torch's LSTM at first order, the reference where a gradient is recorded"
        ),
        _Implementation("reference", "plain PyTorch, differentiable to any order"),
    ),
    "spectral_norm": (
        _Implementation("cpu", "compiled CPU kernels", ("cpu",), _FLOATS, library="cpu"),
        _Implementation(
            "cuda",
            "one launch for all weights of a pass",
            ("cuda",),
            (torch.float32, torch.float64, torch.float16, torch.bfloat16),
            library="cuda",
            proven=False,
        ),
        _Implementation(
            "triton",
            "a few Triton launches for all weights of a pass",
            ("cuda",),
            (torch.float32, torch.float64, torch.float16, torch.bfloat16),
            package="triton",
            proven=False,
        ),
        _Implementation("reference", "plain PyTorch, differentiable to any order"),
    ),
    "gradient_penalty": (
        _Implementation("cpu", "compiled CPU kernels", ("cpu",), _FLOATS, library="cpu"),
        _Implementation(
            "cuda",
            "one launch a pass",
            ("cuda",),
            (torch.float32, torch.float64, torch.float16, torch.bfloat16),
            library="cuda",
            proven=False,
        ),
        _Implementation(
            "triton",
            "one Triton launch or two a pass",
            ("cuda",),
            (torch.float32, torch.float64, torch.float16, torch.bfloat16),
            package="triton",
            proven=False,
        ),
        _Implementation("reference", "plain PyTorch, differentiable to any order"),
    ),
}

# Looked for once, and not by a cached function, of which Dynamo warns where it traces a call.
_INSTALLED = {
    this.package
    for known in _FAMILIES.values()
    for this in known
    if this.package is not None and importlib.util.find_spec(this.package) is not None
}


def _load(name: str) -> _Library:
    path = Path(__file__).with_name(f"_C_{name}.so")
    if not path.exists():
        needs = {"cpu": "a C++17 compiler", "cuda": "nvcc"}[name]
        cure = f"reinstall ganlstm_fast where {needs} is found"
        if path.parents[1].joinpath("setup.py").exists():
            cure = (
                f"{path.parents[1]} is the source tree: start Python in another folder, or install "
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
    """The kernels read these variables themselves, and do not complain."""
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
    choice = dict.fromkeys(_FAMILIES, "auto")
    for part in filter(None, (p.strip() for p in text.split(","))):
        family, _, impl = part.rpartition("=")
        choice.update(_checked_choice(impl, family or None, ENV_IMPL))
    return choice


def _checked_choice(impl: str, family: str | None, argument: str) -> dict[str, str]:
    if impl not in IMPLS:
        raise ValueError(f"{argument}: expected one of {', '.join(IMPLS)}, got {impl!r}")
    if family is not None and family not in _FAMILIES:
        raise ValueError(f"{argument}: expected a family of {', '.join(_FAMILIES)}, got {family!r}")
    return dict.fromkeys([family] if family else _FAMILIES, impl)


_choice = _parse_default(os.environ.get(ENV_IMPL, ""))


@contextlib.contextmanager
def use_impl(impl: str, family: str | None = None) -> Iterator[None]:
    """Make ``impl`` the default of every operator called in the ``with`` block.

    Args:
        impl: ``"auto"``, ``"reference"``, ``"torch"``, ``"cpu"``, ``"cuda"``, ``"cell"`` or
            ``"triton"``.
        family: only this family (``"lstm"``, ``"spectral_norm"``, ``"gradient_penalty"``).

    An operator that cannot be served by ``impl`` raises ``RuntimeError`` when it is called. The
    choice is made when the forward runs; a backward uses what its forward chose. It holds for the
    whole process, not for one thread.
    """
    global _choice
    before = _choice
    _choice = {**_choice, **_checked_choice(impl, family, "impl")}
    try:
        yield
    finally:
        _choice = before


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _why_not(this: _Implementation, device: str, dtype: torch.dtype) -> str | None:
    """The reason why ``this`` cannot serve a call, or None."""
    if this.devices is not None and device not in this.devices:
        return f"runs on {_listed(this.devices)}, not on {device}"
    if this.library is not None and not _LIBRARIES[this.library].loaded:
        return _LIBRARIES[this.library].reason
    if this.package is not None and this.package not in _INSTALLED:
        return f"needs the package {this.package}"
    if this.dtypes is not None and dtype not in this.dtypes:
        *names, last = (str(d).removeprefix("torch.") for d in (*this.dtypes, dtype))
        return f"takes {_listed(names)}, not {last}"
    return None


_warned: set[str] = set()


def warn_once(message: str) -> None:
    """A RuntimeWarning, the first time that this message comes."""
    if message not in _warned and not torch.compiler.is_compiling():
        _warned.add(message)
        warnings.warn(message, RuntimeWarning, stacklevel=4)


def is_auto(family: str, impl: str | None) -> bool:
    """Whether nobody has named an implementation for this call."""
    return (impl or _choice[family]) == "auto"


def resolve(family: str, impl: str | None, device: str, dtype: torch.dtype) -> str:
    """The name of the implementation that serves a call of ``family``.

    Args:
        impl: the caller's ``impl=`` argument; None means the default in force.

    Raises:
        ValueError: ``impl`` is not a known name.
        RuntimeError: the named implementation does not serve this call.
    """
    if impl is None:
        impl = _choice[family]
    elif impl not in IMPLS:
        raise ValueError(f"impl: expected one of {', '.join(IMPLS)}, got {impl!r}")
    known = _FAMILIES[family]
    if impl != "auto":
        found = [this for this in known if this.name == impl]
        reason = (
            _why_not(found[0], device, dtype)
            if found
            else f"{family} has {', '.join(this.name for this in known)}"
        )
        if reason is not None:
            raise RuntimeError(f"impl={impl!r} cannot run {family}: {reason}")
        return impl
    for this in known:
        reason = _why_not(this, device, dtype)
        if reason is None and this.proven:
            return this.name
        if this.proven and this.library == device and not _LIBRARIES[device].loaded:
            warn_once(f"ganlstm_fast runs {family} without its own kernels: {reason}")
    raise RuntimeError(f"no implementation of {family} serves {dtype} on {device}")


def serving(
    family: str, device: str, dtype: torch.dtype, *, proven_only: bool = False
) -> list[str]:
    """The implementations that serve a call, or those of them that ``auto`` may choose."""
    return [
        this.name
        for this in _FAMILIES[family]
        if _why_not(this, device, dtype) is None and (this.proven or not proven_only)
    ]


def explain(
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    proj_size: int = 0,
) -> str:
    """What would run for tensors of this device and dtype, and why the others would not.

    Args:
        device: as for ``torch.device``.
        dtype: dtype of the operator's input.
        proj_size: as for ``torch.nn.LSTM``.

    Returns:
        One line a family.
    """
    kind = torch.device(device).type
    lines = []
    for family, known in _FAMILIES.items():
        if family == "lstm" and proj_size > 0:
            lines.append("lstm: torch.nn.LSTM itself; proj_size has no kernel here")
            continue
        try:
            name = resolve(family, None, kind, dtype)
        except RuntimeError as error:
            lines.append(f"{family}: raises ({error})")
            continue
        chosen = next(this for this in known if this.name == name)
        others = [
            f"{this.name}: {reason or 'not yet run on hardware'}"
            for this in known
            if (reason := _why_not(this, kind, dtype)) or not this.proven
        ]
        what = chosen.what + (f" for {cpu_isa()}" if chosen.name == "cpu" else "")
        by_choice = "" if _choice[family] == "auto" else " (chosen by you)"
        lines.append(f"{family}: {name}{by_choice}, {what}" + "".join(f"; {o}" for o in others))
    return "\n".join(lines)
