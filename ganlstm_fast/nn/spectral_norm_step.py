"""One power iteration for all layers of a model, shared by its calls."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ganlstm_fast.nn.spectral_norm import SpectralNorm
from ganlstm_fast.ops.dynamo import outside_of_graphs
from ganlstm_fast.ops.spectral_norm.function import normalize_and_update

__all__ = ["spectral_norm_step"]

# What the weights of one call have in common.
Options = tuple[torch.device, torch.dtype, int, float, bool]


@contextlib.contextmanager
def spectral_norm_step(model: nn.Module) -> Iterator[None]:
    """Normalise all weights of ``model`` once, for all its calls in the ``with`` block.

    On entry the weights under :func:`ganlstm_fast.spectral_norm` get one power iteration (in
    training mode, of ``n_power_iterations``), all in one launch where there is a kernel. Each
    access in the block then returns the same normalised weight::

        with spectral_norm_step(critic):
            loss = critic(fake).mean() - critic(real).mean()
            (loss + gradient_penalty(critic, real, fake)).backward()

    The gradients of all calls add up in one node of the graph, which each backward may pass:
    ``critic(real).mean().backward()``, then ``critic(fake).mean().backward()`` is fine where our
    kernels run; elsewhere add the losses, or ``retain_graph=True``.

    When weights change in the block, for instance in an optimiser's step, the next access of one
    iterates again, for all that changed. (Changes through ``.data`` are not seen.) A layer that was
    in eval mode on entry iterates when it is accessed in training mode. An access under
    ``no_grad``, or of a weight that does not require a gradient, returns a tensor that does not
    require one, whatever the first access was.

    A block inside of another one for the same layers shares the outer one's weights. Weights that
    are not plain tensors (DTensor), that have other parametrizations before the spectral norm, or
    that come from a replica of ``DataParallel`` or from ``torch.func.functional_call`` are
    normalised at each access, as outside of the block. Like ``parametrize.cached()`` it holds for
    all threads.

    Raises:
        TypeError: ``model`` is not a module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a module, got {type(model).__name__}")
    weights = dict(_weights_of(model))
    shared = SharedWeights(weights)
    try:
        for layer in weights:
            layer.__dict__["_shared"] = shared
        yield
    finally:
        for layer in weights:
            layer.__dict__.pop("_shared", None)


def _weights_of(model: nn.Module) -> Iterator[tuple[SpectralNorm, Tensor]]:
    """The spectral norms that are not in another block, each with its weight."""
    for chain in model.modules():
        if not isinstance(chain, parametrize.ParametrizationList):
            continue
        # Not by attributes, which a module looks up slowly: models have many layers.
        norm, weight = chain._modules["0"], chain._parameters.get("original")
        if (
            type(norm) is SpectralNorm
            and norm._shared is None
            and type(weight) is nn.Parameter
            and weight.dim() > 1
            and not weight.is_inference()
        ):
            yield norm, weight


@dataclass(slots=True)
class _Entry:
    """A layer's normalised weight, and the state of the weight it was computed from."""

    weight: Tensor
    version: int
    address: int
    training: bool
    normalized: Tensor


class SharedWeights:
    """The normalised weights of one block."""

    def __init__(self, weights: dict[SpectralNorm, Tensor]) -> None:
        self._entries: dict[SpectralNorm, _Entry] = {}
        self._normalize(weights.items(), iterate=True)

    @outside_of_graphs("what is shared depends on whether the weights have changed")
    def get(self, layer: SpectralNorm, weight: Tensor) -> Tensor | None:
        """The normalised ``weight`` of ``layer``; None if this block does not share it."""
        entry = self._entries.get(layer)
        if entry is None or weight is not entry.weight:
            return None
        if _is_outdated(layer, entry):
            outdated = [(a, e.weight) for a, e in self._entries.items() if _is_outdated(a, e)]
            self._normalize(outdated, iterate=True)
        if _lacks_a_graph(self._entries[layer]):
            without = [(a, e.weight) for a, e in self._entries.items() if _lacks_a_graph(e)]
            self._normalize(without, iterate=False)
        normalized = self._entries[layer].normalized
        # Not its own method: what a layer gave out as its weight has another.
        return normalized if _needs_a_graph(weight) else Tensor.detach(normalized)

    def _normalize(self, weights: Iterable[tuple[SpectralNorm, Tensor]], iterate: bool) -> None:
        groups: dict[Options, list[tuple[SpectralNorm, Tensor]]] = {}
        for layer, weight in weights:
            options = (layer.n_power_iterations, layer.eps, layer.training and iterate)
            groups.setdefault((weight.device, weight.dtype, *options), []).append((layer, weight))
        for (_, _, iterations, eps, training), members in groups.items():
            layers, originals = zip(*members, strict=True)
            vectors = [layer._u for layer in layers], [layer._v for layer in layers]
            dims = [layer.dim for layer in layers]
            normalized = normalize_and_update(
                originals, *vectors, dims, iterations, eps, training, keep=True
            )
            for layer, weight, result in zip(layers, originals, normalized, strict=True):
                state = (weight._version, weight.data_ptr())
                before = self._entries.get(layer)
                trained = layer.training if iterate or before is None else before.training
                self._entries[layer] = _Entry(weight, *state, trained, result)


def _is_outdated(layer: SpectralNorm, entry: _Entry) -> bool:
    weight = entry.weight
    return (
        weight._version != entry.version
        or weight.data_ptr() != entry.address
        or weight.dtype != entry.normalized.dtype
        or (layer.training and not entry.training)
    )


def _needs_a_graph(weight: Tensor) -> bool:
    return torch.is_grad_enabled() and weight.requires_grad


def _lacks_a_graph(entry: _Entry) -> bool:
    normalized = entry.normalized
    if normalized.is_inference() and not torch.is_inference_mode_enabled():
        return True
    return _needs_a_graph(entry.weight) and not normalized.requires_grad
