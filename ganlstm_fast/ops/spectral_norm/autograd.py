"""The autograd Functions of the spectral norm: three orders; the last one raises.

Each takes a list of weights, so that all weights of a network are one node of the graph. They are
laid out like those of the LSTM (``ganlstm_fast.ops.lstm.autograd``).

The backward reads the normalised weights, never the weights: an optimiser may have changed those in
place. They are still inputs of the backward's Function, because second-order gradients flow to
them. What is computed from ``u`` and ``v`` is constant for autograd.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ganlstm_fast.ops.functions import (
    Function,
    Layout,
    SecondOrder,
    all_added,
    are_tensors,
    contiguous,
    double_backward,
    if_wanted,
    records,
    wanted_inputs,
)
from ganlstm_fast.ops.spectral_norm import operators
from ganlstm_fast.ops.spectral_norm.operators import (
    BackwardArguments,
    DoubleBackwardArguments,
    ForwardArguments,
    UpdateArguments,
    Wanted,
)


class ForwardInputs(NamedTuple):
    """The inputs of the forward's Function.

    ``update``: u and v are overwritten; needs ``training``, and cannot be traced. ``keep``: a
    backward may come more than once without ``retain_graph``.
    """

    arguments: ForwardArguments  # without the weights; autograd does not look into it
    update: bool
    keep: bool
    weights: Sequence[Tensor]


class BackwardInputs(NamedTuple):
    """The inputs of the backward's Function."""

    arguments: BackwardArguments  # without the grads
    grads: Sequence[Tensor | None]
    weights: Sequence[Tensor]


class DoubleBackwardInputs(NamedTuple):
    """The inputs of the double backward's Function."""

    v_weights: Sequence[Tensor | None]
    grads: Sequence[Tensor | None]
    normalized: Sequence[Tensor]
    vectors: Tensor
    inner: Tensor
    dims: Sequence[int]
    eps: float
    wanted: Wanted
    impl: str
    weights: Sequence[Tensor]

    def arguments(self) -> DoubleBackwardArguments:
        fields = DoubleBackwardArguments._fields
        return DoubleBackwardArguments(**{name: getattr(self, name) for name in fields})


FORWARD = Layout(ForwardInputs, "weights")
BACKWARD = Layout(BackwardInputs, "grads", "weights")
DOUBLE_BACKWARD = Layout(DoubleBackwardInputs, "v_weights", "grads", "normalized", "weights")


def _forward(inputs: ForwardInputs) -> tuple[list[Tensor], Tensor]:
    a = inputs.arguments._replace(weights=inputs.weights)
    if not inputs.update:
        return operators.spectral_norm_forward(a)
    results = operators.spectral_norm_forward_(
        UpdateArguments(a.weights, a.u, a.v, a.dims, a.n_power_iterations, a.eps, a.impl)
    )
    torch.autograd.graph.increment_version((*a.u, *a.v))
    return results


def _present(values: Sequence[Tensor]) -> list[Tensor | None]:
    """Results of a kernel, which leaves empty what was not asked for."""
    return [value if value.numel() else None for value in values]


class _Kept:
    """What a backward needs, kept while the graph lives; a change in place is an error.

    ``save_for_backward`` would be given back by the first backward; weights that several calls
    share are reached by one backward for each call's loss.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        # Aliases, because a node that holds its own output is never freed.
        self._tensors = [t.detach() for t in tensors]
        self._versions = [t._version for t in self._tensors]

    def get(self) -> list[Tensor]:
        if self._versions != [t._version for t in self._tensors]:
            raise RuntimeError(
                "ganlstm_fast: a normalised weight that its backward needs was modified in place"
            )
        return self._tensors


class SpectralNormFunction(Function):
    """``ForwardInputs``, flat -> *normalized, vectors."""

    @staticmethod
    def forward(*flat: Any) -> tuple[Tensor, ...]:
        normalized, vectors = _forward(FORWARD.of(flat))
        return *normalized, vectors

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        given = FORWARD.of(inputs)
        a, ctx.weights = given.arguments, given.weights
        ctx.options = {"dims": a.dims, "eps": a.eps, "impl": a.impl}
        *_, vectors = output
        ctx.mark_non_differentiable(vectors)
        ctx.set_materialize_grads(False)
        ctx.are_tensors = are_tensors(inputs)
        ctx.kept = _Kept(output) if given.keep else None
        if not given.keep:
            ctx.save_for_backward(*output)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        *grads, _ = cotangents
        needs = wanted_inputs(ctx, FORWARD)
        grads = [contiguous(grad) for grad in if_wanted(grads, needs.weights)]
        if all(grad is None for grad in grads):
            return FORWARD.gradients(len(grads))
        *normalized, vectors = ctx.saved_tensors if ctx.kept is None else ctx.kept.get()
        a = BackwardArguments(grads=grads, normalized=normalized, vectors=vectors, **ctx.options)
        if torch.is_grad_enabled():
            # The double backward's equations contain their share of the second derivative, so they
            # are constants there.
            a = a._replace(normalized=[n.detach() for n in normalized])
            grad_weights = _recorded_backward(a, ctx.weights)
        else:
            grad_weights, _ = operators.spectral_norm_backward(a)
        return FORWARD.gradients(len(grads), weights=_present(grad_weights))


def _recorded_backward(a: BackwardArguments, weights: Sequence[Tensor]) -> list[Tensor]:
    inputs = BackwardInputs(a._replace(grads=()), a.grads, weights)
    *grad_weights, _ = SpectralNormBackwardFunction.apply(*BACKWARD.flat(inputs))
    return grad_weights


class SpectralNormBackwardFunction(Function):
    """``BackwardInputs``, flat -> *grad_weights, inner."""

    @staticmethod
    def forward(*flat: Any) -> tuple[Tensor, ...]:
        given = BACKWARD.of(flat)
        a = given.arguments._replace(grads=given.grads)
        grad_weights, inner = operators.spectral_norm_backward(a)
        return *grad_weights, inner

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        given = BACKWARD.of(inputs)
        a, ctx.weights = given.arguments, given.weights
        ctx.options = {"dims": a.dims, "eps": a.eps, "impl": a.impl}
        *_, inner = output
        ctx.mark_non_differentiable(inner)
        ctx.set_materialize_grads(False)
        ctx.are_tensors = are_tensors(inputs)
        ctx.save_for_backward(*given.grads, *a.normalized, a.vectors, inner)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        count = len(ctx.weights)
        grads, (*normalized, vectors, inner) = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        needs = wanted_inputs(ctx, BACKWARD)
        *v_weights, _ = (contiguous(v) for v in cotangents)
        wanted = Wanted(any(needs.grads), any(needs.weights))
        if not any(wanted) or all(v is None for v in v_weights):
            return BACKWARD.gradients(count)
        given = DoubleBackwardInputs(
            v_weights=v_weights,
            grads=grads,
            normalized=normalized,
            vectors=vectors,
            inner=inner,
            wanted=wanted,
            weights=ctx.weights,
            **ctx.options,
        )
        results = _present(double_backward(SECOND_ORDER, given))
        return BACKWARD.gradients(
            count,
            grads=if_wanted(results[:count], needs.grads),
            weights=if_wanted(results[count:], needs.weights),
        )


def _run_double_backward(given: DoubleBackwardInputs) -> tuple[Tensor, ...]:
    g_grads, g_weights = operators.spectral_norm_double_backward(given.arguments())
    return *g_grads, *g_weights


def _transposed(
    given: DoubleBackwardInputs,
    cotangents: Sequence[Tensor | None],
    needs: DoubleBackwardInputs,
    unread: Sequence[Tensor | None],
) -> dict[str, Any]:
    """See ``SecondOrder.transposed``."""
    count = len(given.weights)
    w_grads, w_weights = (
        [contiguous(w) for w in part] for part in (cotangents[:count], cotangents[count:])
    )
    found: list[Tensor | None] = [None] * count
    if any(w is not None for w in w_grads):
        backward = BackwardArguments(
            grads=w_grads,
            normalized=given.normalized,
            vectors=given.vectors,
            dims=given.dims,
            eps=given.eps,
            impl=given.impl,
        )
        found = _present(_recorded_backward(backward, given.weights))
    if any(w is not None for w in w_weights):
        again = given._replace(v_weights=w_weights, wanted=Wanted(grads=False, weights=True))
        results = _present(double_backward(SECOND_ORDER, again))
        found = all_added(found, results[count:])
    return {"v_weights": if_wanted(found, needs.v_weights)}


SECOND_ORDER = SecondOrder(
    what="spectral norm",
    layout=DOUBLE_BACKWARD,
    linear=("v_weights",),
    run=_run_double_backward,
    transposed=_transposed,
    unsaved=("weights",),
)


@operators.spectral_norm_forward.differentiate
def _recorded_forward(a: ForwardArguments) -> tuple[list[Tensor], Tensor]:
    inputs = ForwardInputs(a._replace(weights=()), update=False, keep=False, weights=a.weights)
    *normalized, vectors = SpectralNormFunction.apply(*FORWARD.flat(inputs))
    return normalized, vectors


def spectral_norm_forward(
    a: ForwardArguments, update: bool = False, keep: bool = False
) -> tuple[Sequence[Tensor], Tensor]:
    """The operator: normalised weights, and u, v and sigma in one tensor.

    ``update`` and ``keep`` as in :class:`ForwardInputs`.
    """
    if torch.compiler.is_compiling():
        return operators.spectral_norm_forward.dispatch(a)
    inputs = ForwardInputs(a._replace(weights=()), update, keep, a.weights)
    if records(*a.weights):
        *normalized, vectors = SpectralNormFunction.apply(*FORWARD.flat(inputs))
        return normalized, vectors
    return _forward(inputs)
