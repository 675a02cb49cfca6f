"""The two operators of a gradient penalty as functions: points between samples, and the penalty.

The penalty of a critic is made of them: ``ganlstm_fast.losses.gradient_penalty``.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from ganlstm_fast.ops.backends import resolve
from ganlstm_fast.ops.gradient_penalty import autograd, reference
from ganlstm_fast.ops.validation import check_number, check_tensor, describe

__all__ = ["interpolate", "penalty"]

Samples = Tensor | Sequence[Tensor]
SamplesT = TypeVar("SamplesT", Tensor, tuple[Tensor, ...])


def as_tuple(name: str, value: Samples) -> tuple[Tensor, ...]:
    """``value`` as tensors of one batch size, checked."""
    tensors = (value,) if isinstance(value, Tensor) else value
    if not isinstance(tensors, (tuple, list)) or not tensors:
        raise TypeError(f"{name}: expected a tensor or a tuple of tensors, got {describe(value)}")
    for index, tensor in enumerate(tensors):
        label = name if isinstance(value, Tensor) else f"{name}[{index}]"
        check_tensor(label, tensor)
        if tensor.dim() == 0:
            raise ValueError(f"{label}: expected a batch dimension first, got a scalar")
        if tensor.shape[0] != tensors[0].shape[0]:
            raise ValueError(
                f"{label}: expected {tensors[0].shape[0]} samples as {name}[0] has, got shape "
                f"{tuple(tensor.shape)}"
            )
        if tensor.device != tensors[0].device:
            raise ValueError(
                f"{label}: expected device {tensors[0].device} of {name}[0], got {tensor.device}"
            )
    return tuple(tensors)


def check_alike(real: tuple[Tensor, ...], fake: tuple[Tensor, ...]) -> None:
    if len(real) != len(fake):
        raise ValueError(f"fake: expected {len(real)} tensors as real has, got {len(fake)}")
    for index, (r, f) in enumerate(zip(real, fake, strict=True)):
        label = "fake" if len(real) == 1 else f"fake[{index}]"
        if f.shape != r.shape:
            raise ValueError(
                f"{label}: expected shape {tuple(r.shape)} of real, got {tuple(f.shape)}"
            )
        check_tensor(label, f, like=r)


def interpolate(
    real: SamplesT,
    fake: SamplesT,
    *,
    generator: torch.Generator | None = None,
    impl: str | None = None,
) -> SamplesT:
    """``a real + (1 - a) fake`` with one ``a``, uniform in [0, 1), for each sample.

    Args:
        real: (B, ...), any rank from 1 and any floating dtype; or a tuple of such tensors with one
            B, whose parts of a sample share their ``a``.
        fake: of the same shapes, dtypes and device.
        generator: where a seed of 63 bits is drawn from, on the samples' device; that device's
            default generator if None. The numbers are Philox4x32-10 of that seed and of the
            sample's place in the batch (``ganlstm_fast.ops.gradient_penalty.philox``), the same
            whatever the implementation and the device. Nothing waits for the device, and each
            replay of a CUDA graph has new ones.
        impl: which implementation runs, see ``ganlstm_fast.ops.backends``.

    Returns:
        As ``real``. Differentiable in real and fake to any order.

    Raises:
        TypeError: not floating-point tensors. ValueError: shapes, dtypes or devices differ.
        RuntimeError: ``impl`` does not serve this call.
    """
    if isinstance(real, Tensor) and _is_pair(real, fake):
        return _between(real, fake, _draw_seed(real.device, generator), impl)
    reals, fakes = as_tuple("real", real), as_tuple("fake", fake)
    check_alike(reals, fakes)
    points = all_between(reals, fakes, generator, impl)
    return points[0] if isinstance(real, Tensor) else points


def _is_pair(real: Tensor, fake: object) -> bool:
    """Whether two tensors need no further check, which takes as long as a small interpolation."""
    return (
        isinstance(fake, Tensor)
        and real.shape == fake.shape
        and real.dtype == fake.dtype
        and real.device == fake.device
        and real.dim() > 0
        and real.is_floating_point()
    )


def _draw_seed(device: torch.device, generator: torch.Generator | None) -> Tensor:
    return torch.empty(1, dtype=torch.int64, device=device).random_(generator=generator)


def all_between(
    reals: tuple[Tensor, ...],
    fakes: tuple[Tensor, ...],
    generator: torch.Generator | None,
    impl: str | None,
) -> tuple[Tensor, ...]:
    seed = _draw_seed(reals[0].device, generator)
    return tuple(_between(r, f, seed, impl) for r, f in zip(reals, fakes, strict=True))


def _between(real: Tensor, fake: Tensor, seed: Tensor, impl: str | None) -> Tensor:
    chosen = resolve("gradient_penalty", impl, real.device, real.dtype)
    if chosen == "reference":
        return reference.interpolate(real, fake, seed)
    return autograd.interpolate(real, fake, seed, chosen)


def penalty(
    grad: Samples, *, center: float = 1.0, one_sided: bool = False, impl: str | None = None
) -> Tensor:
    """``mean over samples of (||g|| - center)^2``, one-sided ``max(0, ||g|| - center)^2``.

    Args:
        grad: (B, ...), the gradient of each sample's score, any rank from 1 and any floating dtype,
            expanded or not contiguous as it comes; or a tuple of such tensors with one B, whose
            parts make one norm.
        center: 0 or more; 0 gives the mean squared norm.
        one_sided: penalise only norms above ``center``.
        impl: which implementation runs, see ``ganlstm_fast.ops.backends``.

    Returns:
        A scalar in float32 (float64 for float64): norms are accumulated there, so that a float16
        gradient does not overflow. Differentiable twice, and to any order by the reference; a third
        derivative of the kernels raises. Where a gradient is zero and ``center`` is not, the
        derivative of the norm is taken as 0.

    Raises:
        TypeError: not floating-point tensors. ValueError: no samples, or a wrong ``center``.
        RuntimeError: ``impl`` does not serve this call.
    """
    grads = as_tuple("grad", grad)
    if grads[0].shape[0] == 0:
        raise ValueError(f"grad: expected at least one sample, got shape {tuple(grads[0].shape)}")
    check_number("center", center)
    return penalty_of(grads, float(center), bool(one_sided), impl)


def penalty_of(grads: Sequence[Tensor], center: float, one_sided: bool, impl: str | None) -> Tensor:
    dtype = grads[0].dtype
    if len(grads) > 1:
        dtype = functools.reduce(torch.promote_types, (grad.dtype for grad in grads))
        grads = [grad.to(dtype) for grad in grads]
    chosen = resolve("gradient_penalty", impl, grads[0].device, dtype)
    if chosen == "reference":
        return reference.penalty(grads, center, one_sided)
    return autograd.penalty(grads, center, one_sided, chosen)
