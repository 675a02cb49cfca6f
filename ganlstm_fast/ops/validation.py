"""Checks of arguments. Each message names the argument, what was expected and what came."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable

import torch
from torch import Tensor


def describe(value: object) -> str:
    """A value in a few words: the shape and dtype of a tensor, the type of anything else."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}, {value.dtype} on {value.device}"
    return f"{type(value).__name__} {value!r}"


def check_tensor(
    name: str,
    value: object,
    shape: tuple[int | None, ...] | None = None,
    like: Tensor | None = None,
    expected: str | None = None,
) -> None:
    """Check that ``value`` is a floating-point tensor of a shape, dtype and device.

    ``shape`` has None where any size will do; ``expected`` words the shape in the message. ``like``
    is of a floating dtype.

    Raises:
        TypeError: not a tensor, or not of a floating dtype.
        ValueError: another shape, dtype or device.
    """
    if (
        like is not None
        and isinstance(value, Tensor)
        and value.shape == shape
        and value.dtype == like.dtype
        and value.device == like.device
    ):
        return  # the fast path; the checks below only find the right message
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {describe(value)}")
    if not value.is_floating_point():
        raise TypeError(f"{name}: expected a floating-point tensor, got {describe(value)}")
    if shape is not None and (
        value.dim() != len(shape)
        or any(
            want is not None and want != got for want, got in zip(shape, value.shape, strict=True)
        )
    ):
        words = expected or "(" + ", ".join("*" if s is None else str(s) for s in shape) + ")"
        raise ValueError(f"{name}: expected shape {words}, got {tuple(value.shape)}")
    if like is not None and value.dtype != like.dtype:
        raise ValueError(f"{name}: expected {like.dtype} as the input has, got {value.dtype}")
    if like is not None and value.device != like.device:
        raise ValueError(f"{name}: expected device {like.device} of the input, got {value.device}")


def check_lengths(lengths: object, batch: int, steps: int) -> Tensor:
    """``lengths`` as an int64 tensor (batch,) with values in 1..steps.

    Lengths on the CPU are checked. Lengths on another device are taken as they are, since reading
    them would synchronise.

    Raises:
        TypeError: not integers.
        ValueError: a wrong shape, or a value out of range; the message names its index.
    """
    if not isinstance(lengths, Tensor):
        try:
            # A copy: a buffer that is used again before the backward would change the gradient.
            lengths = torch.as_tensor(lengths).clone()
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(
                f"lengths: expected a tensor or a sequence of integers, got {describe(lengths)}"
            ) from None
    if lengths.numel() == 0:
        lengths = lengths.to(torch.int64)  # torch makes [] a float tensor
    if lengths.dtype.is_floating_point or lengths.dtype.is_complex or lengths.dtype == torch.bool:
        raise TypeError(f"lengths: expected integers, got {describe(lengths)}")
    if tuple(lengths.shape) != (batch,):
        raise ValueError(f"lengths: expected shape ({batch},), got {tuple(lengths.shape)}")
    lengths = lengths.to(torch.int64).contiguous()
    # A traced or fake tensor has no values yet; the compiled operator checks them later.
    plain = type(lengths) is Tensor and not torch.compiler.is_compiling()
    if lengths.device.type == "cpu" and batch > 0 and plain:
        bad = ((lengths < 1) | (lengths > steps)).nonzero()
        if bad.numel():
            index = int(bad[0])
            raise ValueError(
                f"lengths: expected values in 1..{steps}, got {int(lengths[index])} at index "
                f"{index}"
            )
    return lengths


def check_counts(minimum: int = 1, **values: object) -> None:
    """Check that each of ``values`` is an integer of ``minimum`` or more.

    Raises:
        TypeError: not an integer. ValueError: less; the message names the argument.
    """
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name}: expected an integer, got {describe(value)}")
        if value < minimum:
            raise ValueError(f"{name}: expected {minimum} or more, got {value}")


def check_number(name: str, value: object) -> None:
    """Check that ``value`` is a finite number, 0 or more.

    Raises:
        TypeError: not a number. ValueError: negative, infinite or NaN; the message names ``name``.
    """
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise TypeError(f"{name}: expected a number, got {describe(value)}")
    if not (value >= 0 and math.isfinite(value)):
        raise ValueError(f"{name}: expected a finite number, 0 or more, got {value}")


def check_choice(name: str, value: object, choices: Iterable[object]) -> None:
    """Check that ``value`` is one of ``choices``; raises ValueError, which lists them."""
    if value not in (choices := tuple(choices)):
        listed = ", ".join(map(repr, choices))
        raise ValueError(f"{name}: expected one of {listed}, got {describe(value)}")
