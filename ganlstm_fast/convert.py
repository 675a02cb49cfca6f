"""Convert a model made of torch's layers in place, and back.

>>> report = accelerate(model)
>>> print(report)
>>> to_torch(model)

Both change classes, never tensors: each module stays the same object with the same parameters and
buffers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm as TorchSpectralNorm
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.spectral_norm import (
    SpectralNorm as OldSpectralNorm,
)
from torch.nn.utils.spectral_norm import (
    SpectralNormLoadStateDictPreHook,
    SpectralNormStateDictHook,
)
from torch.nn.utils.weight_norm import WeightNorm as OldWeightNorm

from ganlstm_fast import nn as layers
from ganlstm_fast.nn.conv_norm import OperatorSpectralNorm
from ganlstm_fast.nn.parametrized import complete, set_class
from ganlstm_fast.nn.spectral_norm import SpectralNorm, _translate_state
from ganlstm_fast.ops.spectral_norm.function import check_options
from ganlstm_fast.ops.validation import describe

__all__ = ["Change", "Report", "accelerate", "to_torch"]

_TO_OURS: dict[type, type] = {nn.LSTM: layers.FastLSTM, nn.LSTMCell: layers.FastLSTMCell}
_TO_TORCH: dict[type, type] = {
    **{ours: torchs for torchs, ours in _TO_OURS.items()},
    layers.SNLSTM: nn.LSTM,
    layers.SNConv1d: nn.Conv1d,
    layers.SNConv2d: nn.Conv2d,
    layers.SNConv3d: nn.Conv3d,
    layers.SNConvTranspose1d: nn.ConvTranspose1d,
    layers.SNConvTranspose2d: nn.ConvTranspose2d,
    layers.SNConvTranspose3d: nn.ConvTranspose3d,
    layers.SNLinear: nn.Linear,
    layers.SNEmbedding: nn.Embedding,
}

_RECURRENT = {"LSTM", "LSTMCell", "GRU", "GRUCell", "RNN", "RNNCell"}
# Buffers or parameters of mimicry's and BigGAN's layers, and of the wrapper of SAGAN's code.
_SPECTRAL_NORMS_OF_OTHERS = {"sn_u", "u0", "weight_bar"}

_SHARDED = {"FullyShardedDataParallel", "FSDPModule"}


@dataclass(frozen=True)
class Change:
    """What became of one module, or of the spectral norm of one of its weights."""

    module: str  # its name in the model, "" for the model itself
    before: str
    after: str | None  # None: left alone
    note: str = ""  # why it was left alone, or what to know

    def __str__(self) -> str:
        text = f"{self.module or '(the model)'}: {self.before}"
        if self.after is None:
            return f"{text}, left alone: {self.note}"
        return f"{text} -> {self.after}" + (f" ({self.note})" if self.note else "")


class Report(list[Change]):
    """A list of :class:`Change`; printed, a line for each."""

    @property
    def changed(self) -> list[Change]:
        return [change for change in self if change.after is not None]

    @property
    def left_alone(self) -> list[Change]:
        return [change for change in self if change.after is None]

    def __str__(self) -> str:
        head = f"{len(self.changed)} converted, {len(self.left_alone)} left alone"
        return "\n".join([head, *map(str, self)])


def accelerate(model: nn.Module) -> Report:
    """Replace torch's LSTM and spectral norm in a model by this library's.

    Converted are ``nn.LSTM`` and ``nn.LSTMCell`` (weight norm, weight drop and other
    parametrizations included), ``torch.nn.utils.parametrizations.spectral_norm`` and the older
    ``torch.nn.utils.spectral_norm``, on any module. It leaves alone, and reports: subclasses of
    ``nn.LSTM``, which may override its forward; modules whose ``forward`` was replaced on the
    instance; ``proj_size``, which has no kernel; complex weights; other recurrent layers (GRU, RNN,
    quantized or scripted ones); weight norms; and spectral norms other than torch's two.

    In place: modules, parameters and buffers stay the same objects, so that optimisers, hooks,
    ``DistributedDataParallel`` and shared modules or weights keep working; ``requires_grad``,
    training mode, ``u`` and ``v`` stay as they are. The numbers are torch's, up to rounding. Only
    in two cases of training mode does the number of iterations differ; the report names them.
    ``state_dict`` keeps its keys; those of the older spectral norm become those of the newer
    (``parametrizations.weight.original`` for ``weight_orig``), and old checkpoints still load. A
    third derivative of our kernels raises.

    Call it before ``torch.compile`` and before FSDP; before or after DDP and the optimiser.

    Args:
        model: changed in place.

    Returns:
        What was changed to what, and what was left alone and why. Empty: nothing to convert.

    Raises:
        TypeError: not a module. ValueError: ``model`` is sharded by FSDP, which remembers where
            each weight is stored.
    """
    report = Report()
    for name, module in _modules(model):
        report += _accelerate_class(name, module)
        for hook in list(module._forward_pre_hooks.values()):
            if type(hook) is OldSpectralNorm:
                report.append(_convert_old(name, module, hook))
        for weight, index, item in _parametrizations(module):
            if type(item) is TorchSpectralNorm:
                report.append(_convert_new(name, module, weight, index))
        report += _unknown(name, module)
        if isinstance(module, layers.FastLSTM) and parametrize.is_parametrized(module):
            # Replaces the weights that torch's class had evaluated and kept.
            module._init_flat_weights()
    return report


def to_torch(model: nn.Module) -> Report:
    """Replace this library's layers in a model by torch's: undoes :func:`accelerate`.

    For ``torch.export`` and ONNX, which do not know our operators, and to go on without this
    library. ``FastLSTM``, ``FastLSTMCell``, ``SNLSTM``, ``SNConv2d`` and the others become torch's
    layers, with torch's parametrization where they have a spectral norm; in place, with the same
    modules, parameters, buffers and ``state_dict``, as :func:`accelerate`. torch's LSTM does not
    take ``lengths=``, and runs the iterations of a spectral norm two to four times per forward.

    Left alone, and reported: subclasses of our layers, modules whose ``forward`` was replaced on
    the instance, and ``norm="conv"``, which torch does not have.

    Args, Returns, Raises: as :func:`accelerate`.
    """
    report = Report()
    for name, module in _modules(model):
        items = list(_parametrizations(module))
        if any(isinstance(item, OperatorSpectralNorm) for _, _, item in items):
            note = "torch has no norm of the operator; remove_spectral_norm first"
            report.append(Change(name, _title(module), None, note))
            continue
        report += _class_to_torch(name, module)
        for weight, _, item in items:
            if type(item) is SpectralNorm:
                item.__class__ = TorchSpectralNorm
                set_class(module, parametrize.type_before_parametrizations(module))
                _remove_hooks(module._load_state_dict_pre_hooks, partial(_is_ours, weight))
                report.append(Change(name, _norm("ganlstm_fast", weight), _norm("torch", weight)))
    return report


def _modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Each module once, with its first name."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {describe(model)}")
    found = list(model.named_modules())
    for name, module in found:
        if _SHARDED.intersection(c.__name__ for c in type(module).__mro__):
            raise ValueError(
                f"model: expected one that FSDP has not sharded yet, got {name or 'the model'} "
                f"of type {type(module).__name__}; convert it first"
            )
    return found


def _parametrizations(module: nn.Module) -> Iterator[tuple[str, int, nn.Module]]:
    if parametrize.is_parametrized(module):
        for weight, chain in module.parametrizations.items():
            yield from ((weight, index, item) for index, item in enumerate(chain))


def _title(module: nn.Module) -> str:
    base = parametrize.type_before_parametrizations(module)
    package = base.__module__.split(".")[0]
    return f"{'torch.nn' if package == 'torch' else package}.{base.__name__}"


def _norm(owner: str, weight: str) -> str:
    return f"spectral norm of {weight} ({owner})"


# ---- classes ----


def _accelerate_class(name: str, module: nn.Module) -> Iterator[Change]:
    if not isinstance(module, tuple(_TO_OURS)) or isinstance(module, tuple(_TO_OURS.values())):
        return
    base, before = parametrize.type_before_parametrizations(module), _title(module)
    note = ""
    if base not in _TO_OURS:
        torchs = "LSTM" if isinstance(module, nn.LSTM) else "LSTMCell"
        note = f"a subclass may have a forward of its own; derive it from Fast{torchs}"
    elif "forward" in vars(module):
        note = "its forward was replaced on the instance"
    elif getattr(module, "proj_size", 0):
        note = "there is no kernel with proj_size"
    if note:
        yield Change(name, before, None, note)
        return
    set_class(module, _TO_OURS[base])
    module.impl = None
    if isinstance(module, layers.FastLSTM):
        module.recompute = False
    yield Change(name, before, _title(module))


def _unknown(name: str, module: nn.Module) -> Iterator[Change]:
    """Recurrent layers and normalisations of weights that this library cannot replace."""

    def left(what: str, note: str) -> Change:
        return Change(name, what, None, note)

    if isinstance(module, torch.jit.ScriptModule):  # which has no hooks and buffers to look at
        if module.original_name in _RECURRENT:
            yield left(f"a scripted {module.original_name}", "scripted code cannot be changed")
        return
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        if not isinstance(module, (nn.LSTM, nn.LSTMCell)):
            yield left(_title(module), "there is no kernel for it, only for LSTM and LSTMCell")
    elif type(module).__name__ in _RECURRENT and type(module).__module__.startswith("torch.ao."):
        yield left(f"a quantized {type(module).__name__}", "there is no quantized kernel")
    hooks = [
        hook.name for hook in module._forward_pre_hooks.values() if type(hook) is OldWeightNorm
    ]
    items = [weight for weight, _, item in _parametrizations(module) if type(item) is _WeightNorm]
    for weight in (*hooks, *items):
        yield left(
            f"weight norm of {weight} (torch)", "there is no kernel for it; it stays as it is"
        )
    if _SPECTRAL_NORMS_OF_OTHERS.intersection((*module._buffers, *module._parameters)):
        note = "neither of torch's; apply ganlstm_fast.spectral_norm to a plain layer instead"
        yield left(f"spectral norm of {type(module).__name__}", note)


def _class_to_torch(name: str, module: nn.Module) -> Iterator[Change]:
    base, before = parametrize.type_before_parametrizations(module), _title(module)
    if base not in _TO_TORCH:
        if isinstance(module, tuple(_TO_TORCH)):
            yield Change(name, before, None, "a subclass may have a forward of its own")
        return
    if "forward" in vars(module):
        yield Change(name, before, None, "its forward was replaced on the instance")
        return
    note = "recompute=True is lost" if getattr(module, "recompute", False) else ""
    set_class(module, _TO_TORCH[base])
    for attribute in ("impl", "recompute"):
        vars(module).pop(attribute, None)
    yield Change(name, before, _title(module), note)


# ---- spectral norms ----


def _convert_new(name: str, module: nn.Module, weight: str, index: int) -> Change:
    """torch's parametrization becomes ours: the same attributes and buffers, another forward."""
    chain = module.parametrizations[weight]
    item, before = chain[index], _norm("torch", weight)
    tensors = [*chain.parameters(recurse=False), *chain.buffers()]
    if any(tensor.is_complex() for tensor in tensors):
        return Change(name, before, None, "a complex weight")
    iterations = getattr(item, "n_power_iterations", 1)  # not there for a vector
    try:
        check_options(item.dim + 1, iterations, item.eps, item.dim)
    except (TypeError, ValueError) as error:
        return Change(name, before, None, str(error))
    item.__class__ = SpectralNorm
    _complete(item, iterations)
    _finish(module, weight)
    note = ""
    if isinstance(module, layers.FastLSTM):
        note = "an iteration a forward in training; torch's LSTM runs two to four"
    return Change(name, before, _norm("ganlstm_fast", weight), note)


def _complete(item: nn.Module, iterations: int) -> None:
    # What our constructor sets and torch's does not. It draws no u and v for a vector.
    for key, value in vars(SpectralNorm(torch.ones(1), iterations, 0, item.eps)).items():
        vars(item).setdefault(key, value)


def _convert_old(name: str, module: nn.Module, hook: OldSpectralNorm) -> Change:
    """The hook of ``torch.nn.utils.spectral_norm`` becomes our parametrization."""
    weight, before = hook.name, f"{_norm('torch', hook.name)} (the older, a hook)"
    original = module._parameters.get(f"{weight}_orig")
    note = ""
    if isinstance(module, nn.RNNBase) and not isinstance(module, layers.FastLSTM):
        note = "this layer would read the weight, and so iterate, several times a forward"
    elif type(original) is not nn.Parameter or original.is_complex():
        note = f"expected a real Parameter {weight}_orig, got {describe(original)}"
    else:
        try:
            dim = check_options(original.dim(), hook.n_power_iterations, hook.eps, hook.dim)
        except (TypeError, ValueError) as error:
            note = str(error)
    if note:
        return Change(name, before, None, note)
    norm = SpectralNorm(torch.ones(1), hook.n_power_iterations, 0, hook.eps)
    norm.dim = dim
    norm.register_buffer("_u", module._buffers.pop(f"{weight}_u"))
    norm.register_buffer("_v", module._buffers.pop(f"{weight}_v"))
    _remove_hooks(module._forward_pre_hooks, lambda other: other is hook)
    for hooks, kind in (
        (module._state_dict_hooks, SpectralNormStateDictHook),
        (module._load_state_dict_pre_hooks, SpectralNormLoadStateDictPreHook),
    ):
        _remove_hooks(hooks, partial(_is_of, kind, weight))
    vars(module).pop(weight, None)  # what the hook computed last
    del module._parameters[f"{weight}_orig"]
    # Registered with another tensor in its place: torch calls set_ on the one it is given, which
    # gives a leaf a new gradient accumulator, without the hooks by which DDP averages.
    module.register_parameter(weight, nn.Parameter(torch.empty(0)))
    # unsafe: the check of the shapes would run an iteration.
    parametrize.register_parametrization(module, weight, norm, unsafe=True)
    chain = module.parametrizations[weight]
    chain.original, chain.unsafe = original, False
    _finish(module, weight)
    after = _norm("ganlstm_fast", weight)
    return Change(name, before, after, "iterations start with u, as in torch's parametrization")


def _finish(module: nn.Module, weight: str) -> None:
    """What :func:`ganlstm_fast.spectral_norm` does after it has registered a parametrization."""
    module.register_load_state_dict_pre_hook(partial(_translate_state, weight))
    complete(module, weight)


def _is_of(kind: type, weight: str, hook: object) -> bool:
    return isinstance(hook, kind) and hook.fn.name == weight


def _is_ours(weight: str, hook: object) -> bool:
    return isinstance(hook, partial) and hook.func is _translate_state and hook.args == (weight,)


def _remove_hooks(hooks: dict[int, Any], unwanted: Callable[[object], bool]) -> None:
    for key, hook in list(hooks.items()):
        if unwanted(getattr(hook, "hook", hook)):  # torch wraps some
            del hooks[key]
