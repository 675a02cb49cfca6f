"""The autograd Functions of the spectral norm: three orders, the last of which raises.

Each takes a list of weights, so that all weights of a network are one node of the graph. They are
laid out like those of the LSTM (``ganlstm_fast.ops.lstm.autograd``), which says why the third order
is a Function of its own.

The backward reads the normalised weights, never the weights: an optimiser may have changed those in
place. They are still inputs of the backward's Function, because second-order gradients flow to
them. What is computed from ``u`` and ``v`` is constant for autograd, so they are passed in lists,
which autograd does not look into.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ganlstm_fast.ops.functions import (
    Function,
    added,
    are_tensors,
    contiguous,
    records,
    refuse_unless_linear,
    wanted_inputs,
)
from ganlstm_fast.ops.operators import Operators, register
from ganlstm_fast.ops.spectral_norm import triton_ops  # noqa: F401  (defines operators)

THIRD_ORDER = (
    "ganlstm_fast: the fused spectral norm is differentiable twice, and a third derivative was "
    'asked for; use impl="reference", which is differentiable to any order'
)


def _forward(
    kernels: Operators,
    weights: Sequence[Tensor],
    u: Sequence[Tensor],
    v: Sequence[Tensor],
    dims: Sequence[int],
    n_power_iterations: int,
    eps: float,
    training: bool,
    update: bool = False,
) -> tuple[list[Tensor], Tensor]:
    if not update:
        return kernels.spectral_norm_forward(weights, u, v, dims, n_power_iterations, eps, training)
    results = kernels.spectral_norm_forward_(weights, u, v, dims, n_power_iterations, eps)
    torch.autograd.graph.increment_version((*u, *v))
    return results


def _present(values: Sequence[Tensor]) -> list[Tensor | None]:
    """Results of a kernel, which leaves empty what was not asked for."""
    return [value if value.numel() else None for value in values]


class _Kept:
    """What a backward needs, for as long as the graph lives, and of which no copy is changed.

    ``save_for_backward`` would be given back by the first backward; weights that several calls
    share are reached by one backward for each call's loss.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        # Aliases: an output that its own node holds would never be freed.
        self._tensors = [t.detach() for t in tensors]
        self._versions = [t._version for t in self._tensors]

    def get(self) -> list[Tensor]:
        if self._versions != [t._version for t in self._tensors]:
            raise RuntimeError(
                "ganlstm_fast: a normalised weight that its backward needs was modified in place"
            )
        return self._tensors


class SpectralNormFunction(Function):
    """(kernels, dims, n_power_iterations, eps, training, update, keep, u, v, *weights)
    -> *normalized, vectors.

    ``update``: u and v are overwritten. ``keep``: a backward may come more than once without
    ``retain_graph``.
    """

    @staticmethod
    def forward(
        kernels: Operators,
        dims: Sequence[int],
        n_power_iterations: int,
        eps: float,
        training: bool,
        update: bool,
        keep: bool,
        u: Sequence[Tensor],
        v: Sequence[Tensor],
        *weights: Tensor,
    ) -> tuple[Tensor, ...]:
        options = (dims, n_power_iterations, eps, training, update)
        normalized, vectors = _forward(kernels, weights, u, v, *options)
        return *normalized, vectors

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.kernels, ctx.dims, _, ctx.eps, _, _, keep, _, _, *ctx.weights = inputs
        ctx.mark_non_differentiable(output[-1])
        ctx.set_materialize_grads(False)
        ctx.kept = _Kept(output) if keep else None
        if not keep:
            ctx.save_for_backward(*output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        count = len(ctx.weights)
        needs = wanted_inputs(ctx, [False] * 9 + [True] * count, 9)[9:]
        wanted = [contiguous(g) if n else None for g, n in zip(grads[:-1], needs, strict=True)]
        if all(grad is None for grad in wanted):
            return (None,) * (9 + count)
        *normalized, vectors = ctx.saved_tensors if ctx.kept is None else ctx.kept.get()
        if torch.is_grad_enabled():
            # Their share of the second derivative is in the double backward's equations: seen from
            # there they are constants.
            saved = [*(n.detach() for n in normalized), vectors]
            outputs = SpectralNormBackwardFunction.apply(
                ctx.kernels, ctx.dims, ctx.eps, saved, *wanted, *ctx.weights
            )[:-1]
        else:
            outputs = ctx.kernels.spectral_norm_backward(
                wanted, normalized, vectors, ctx.dims, ctx.eps
            )[0]
        return (None,) * 9 + tuple(_present(outputs))


class SpectralNormBackwardFunction(Function):
    """(kernels, dims, eps, [*normalized, vectors], *grads, *weights) -> *grad_weights, inner."""

    @staticmethod
    def forward(
        kernels: Operators,
        dims: Sequence[int],
        eps: float,
        saved: list[Tensor],
        *tensors: Tensor | None,
    ) -> tuple[Tensor, ...]:
        *normalized, vectors = saved
        grads = tensors[: len(normalized)]
        grad_weights, inner = kernels.spectral_norm_backward(grads, normalized, vectors, dims, eps)
        return *grad_weights, inner

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.kernels, ctx.dims, ctx.eps, saved, *tensors = inputs
        count = len(tensors) // 2
        ctx.weights = tensors[count:]
        ctx.mark_non_differentiable(output[-1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors[:count], *saved, output[-1])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        count = len(ctx.weights)
        grads = ctx.saved_tensors[:count]
        *normalized, vectors, inner = ctx.saved_tensors[count:]
        tensors = [False] * 4 + [g is not None for g in grads] + [True] * count
        needs = wanted_inputs(ctx, tensors, 4 + count)[4:]
        v_weights = [contiguous(v) for v in cotangents[:-1]]
        wanted = [any(needs[:count]), any(needs[count:])]
        if not any(wanted) or all(v is None for v in v_weights):
            return (None,) * (4 + 2 * count)
        apply = SpectralNormDoubleBackwardFunction.forward
        if torch.is_grad_enabled():
            apply = SpectralNormDoubleBackwardFunction.apply
        options = (ctx.kernels, ctx.dims, ctx.eps, wanted, [*normalized, vectors, inner])
        outputs = _present(apply(*options, *v_weights, *grads, *ctx.weights))
        outputs = [o if need else None for o, need in zip(outputs, needs, strict=True)]
        return None, None, None, None, *outputs


class SpectralNormDoubleBackwardFunction(Function):
    """Second-order gradients as a node of the graph, so that a third order meets an error.

    (kernels, dims, eps, wanted, [*normalized, vectors, inner], *v_weights, *grads, *weights)
    -> *g_grads, *g_weights.
    """

    @staticmethod
    def forward(
        kernels: Operators,
        dims: Sequence[int],
        eps: float,
        wanted: list[bool],
        saved: list[Tensor],
        *tensors: Tensor | None,
    ) -> tuple[Tensor, ...]:
        *normalized, vectors, inner = saved
        count = len(normalized)
        v_weights, grads = tensors[:count], tensors[count : 2 * count]
        g_grads, g_weights = kernels.spectral_norm_double_backward(
            v_weights, grads, normalized, vectors, inner, dims, eps, wanted
        )
        return *g_grads, *g_weights

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.kernels, ctx.dims, ctx.eps, _, saved, *tensors = inputs
        count = len(saved) - 2
        ctx.weights = tensors[2 * count :]
        ctx.are_tensors = are_tensors(inputs)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors[count : 2 * count], *saved)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        count = len(ctx.weights)
        grads, saved = ctx.saved_tensors[:count], list(ctx.saved_tensors[count:])
        linear = range(5, 5 + count)
        needs = refuse_unless_linear(ctx, ctx.are_tensors, linear, THIRD_ORDER)[5 : 5 + count]
        w_grads, w_weights = (
            [contiguous(w) for w in part] for part in (cotangents[:count], cotangents[count:])
        )
        found: list[Tensor | None] = [None] * count
        options = (ctx.kernels, ctx.dims, ctx.eps)
        if any(w is not None for w in w_grads):
            outputs = SpectralNormBackwardFunction.apply(
                *options, saved[:-1], *w_grads, *ctx.weights
            )
            found = _present(outputs[:-1])
        if any(w is not None for w in w_weights):
            outputs = SpectralNormDoubleBackwardFunction.apply(
                *options, [False, True], saved, *w_weights, *grads, *ctx.weights
            )
            second = _present(outputs[count:])
            found = [added(a, b) for a, b in zip(found, second, strict=True)]
        found = [f if need else None for f, need in zip(found, needs, strict=True)]
        return *(None,) * 5, *found, *(None,) * (2 * count)


def spectral_norm_forward(
    kernels: Operators,
    weights: Sequence[Tensor],
    u: Sequence[Tensor],
    v: Sequence[Tensor],
    dims: Sequence[int],
    n_power_iterations: int,
    eps: float,
    training: bool,
    update: bool = False,
    keep: bool = False,
) -> tuple[Sequence[Tensor], Tensor]:
    """The operator: normalised weights, and u, v and sigma in one tensor (see bindings.cpp).

    Args:
        update: u and v are overwritten. Needs ``training``, and cannot be traced.
        keep: a backward may come more than once without ``retain_graph``.
    """
    options = (dims, n_power_iterations, eps, training)
    if torch.compiler.is_compiling():
        return kernels.traced_spectral_norm_forward(weights, u, v, *options)
    if records(*weights):
        outputs = SpectralNormFunction.apply(kernels, *options, update, keep, u, v, *weights)
        return outputs[:-1], outputs[-1]
    return _forward(kernels, weights, u, v, *options, update)


def _forward_autograd(
    kernels: Operators,
    weights: list[Tensor],
    u: list[Tensor],
    v: list[Tensor],
    dims: list[int],
    n_power_iterations: int,
    eps: float,
    training: bool,
) -> tuple[list[Tensor], Tensor]:
    """What the forward's operator does for autograd."""
    options = (dims, n_power_iterations, eps, training)
    if records(*weights):
        *normalized, vectors = SpectralNormFunction.apply(
            kernels, *options, False, False, u, v, *weights
        )
        return normalized, vectors
    return _forward(kernels, weights, u, v, *options)


def outputs_like(
    weights: list[Tensor], u: list[Tensor], v: list[Tensor], *_: Any
) -> tuple[list[Tensor], Tensor]:
    """Of the shapes and dtypes of what the operator returns."""
    size = sum(t.numel() + 1 for t in u) + sum(t.numel() for t in v)
    wide = torch.promote_types(weights[0].dtype, torch.float32)
    return [w.new_empty(w.shape) for w in weights], weights[0].new_empty(size, dtype=wide)


# The first is kept for the life of the process.
_library, KERNELS = register(
    tuple(
        f"spectral_norm_{name}" for name in ("forward", "forward_", "backward", "double_backward")
    ),
    {"spectral_norm_forward": (_forward_autograd, outputs_like)},
)
