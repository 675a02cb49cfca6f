"""Lists of samples for the kernels of the gradient penalty, what the formulas give for them, and
the checks that every implementation has to pass.

``ops`` are the kernels: functions with the names and arguments of those in ``ops/schemas.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ganlstm_fast.ops.gradient_penalty import reference
from ganlstm_fast.ops.gradient_penalty.philox import uniform
from tests.numerics import assert_close_to_reference

# (center, one_sided): of two sides, of one, and without a center.
CURVES = [(1.0, False), (1.0, True), (0.0, False)]

# The samples take a warp, a block, or several.
CASES = {
    "one": [(1, 7)],
    "numbers": [(5,)],
    "sequences": [(9, 24, 28)],
    "many": [(600, 3)],
    "odd": [(5, 3, 27, 31)],
    "large": [(5, 9001)],
    "one large": [(1, 8192)],
    "tuple": [(6, 5), (6, 24, 28), (6, 0), (6,)],
    "large tuple": [(3, 5000), (3, 0), (3, 2), (3, 4100)],
    "empty samples": [(3, 0)],
}


def place(value: Tensor, dtype: torch.dtype, device: str, offset: int, is_last: bool) -> Tensor:
    """A copy of ``value``, ``offset`` elements into its memory; channels last if asked."""
    if is_last and value.dim() == 4:
        value = value.contiguous(memory_format=torch.channels_last)
    memory = torch.full((value.numel() + offset,), torch.nan, dtype=dtype, device=device)
    return memory[offset:].as_strided(value.shape, value.stride()).copy_(value)


class Samples:
    """Drawn in float64 and rounded to ``dtype``: real or the gradients, fake or V."""

    def __init__(
        self,
        shapes: Sequence[tuple[int, ...]],
        dtype: torch.dtype,
        *,
        offsets: tuple[int, int] = (0, 0),
        channels_last: bool = False,
        absent: Sequence[int] = (),
        device: str = "cpu",
    ) -> None:
        """``absent``: indices of the tensors that the second list has as None."""
        self.dtype, self.device = dtype, device
        norm = sum(torch.Size(shape[1:]).numel() for shape in shapes) ** 0.5
        self.first: list[Tensor] = []
        self.second: list[Tensor | None] = []
        for index, shape in enumerate(shapes):
            # Norms on both sides of 1.
            scale = torch.linspace(0.4, 3, shape[0], dtype=torch.float64) / max(norm, 1)
            x = torch.randn(shape, dtype=torch.float64) * scale.view(-1, *[1] * (len(shape) - 1))
            # <V, g> is well-conditioned.
            y = torch.randn(shape, dtype=torch.float64) + 2 * x.sign()
            self.first.append(place(x, dtype, device, offsets[0], channels_last))
            y = place(y, dtype, device, offsets[1], channels_last)
            self.second.append(None if index in absent else y)
        self.grad_value = torch.tensor(0.7, dtype=self.wide, device=device)

    @property
    def wide(self) -> torch.dtype:
        return torch.promote_types(self.dtype, torch.float32)

    def points(
        self, real: Tensor | None, fake: Tensor | None, seed: Tensor, dtype: torch.dtype
    ) -> Tensor:
        """The formula of ``interpolate``, in ``dtype``."""
        like = fake if real is None else real
        a = uniform(seed.cpu(), len(like), self.wide).to(dtype).view(-1, *[1] * (like.dim() - 1))
        of_real = 0 if real is None else a * real.cpu().to(dtype)
        of_fake = 0 if fake is None else (1 - a) * fake.cpu().to(dtype)
        return (of_real + of_fake).to(self._result(dtype))

    def _result(self, dtype: torch.dtype) -> torch.dtype:
        return dtype if dtype == torch.float64 else self.dtype

    def penalty(self, dtype: torch.dtype, center: float, one_sided: bool) -> dict[str, Any]:
        """Both orders of the penalty in plain PyTorch, in ``dtype``."""
        grads = [g.cpu().to(dtype).requires_grad_() for g in self.first]
        s = self.grad_value.cpu().to(torch.promote_types(dtype, torch.float32)).requires_grad_()
        norms = reference.squared_norms([g.detach() for g in grads]).sqrt()
        value = reference.penalty(grads, center, one_sided)
        first = torch.autograd.grad(value, grads, s, create_graph=True)
        pairs = [
            (d, v.cpu().to(dtype)) for d, v in zip(first, self.second, strict=True) if v is not None
        ]
        derivatives, v_grads = zip(*pairs, strict=True)
        second = torch.autograd.grad(
            derivatives, [s, *grads], v_grads, allow_unused=True, materialize_grads=True
        )
        return {
            "value": value.detach(),
            "norms": norms,
            "backward": [d.detach().to(self._result(dtype)) for d in first],
            "of s": second[0],
            "of g": [g.to(self._result(dtype)) for g in second[1:]],
        }

    def by_kernels(self, ops: Any, center: float, one_sided: bool) -> dict[str, Any]:
        options = (center, one_sided)
        value, norms = ops.penalty_forward(self.first, *options)
        backward = ops.penalty_backward(self.grad_value, self.first, norms, *options)
        of_s, of_g = ops.penalty_double_backward(
            self.second, self.grad_value, self.first, norms, *options, [True, True]
        )
        for got in (backward, of_g):
            assert [g.stride() for g in got] == [g.stride() for g in self.first]
            assert all(g.dtype == self.dtype for g in got)
        assert value.dtype == norms.dtype == of_s.dtype == self.wide
        named = {"value": value, "norms": norms, "backward": backward, "of s": of_s, "of g": of_g}
        return {
            k: v.cpu() if isinstance(v, Tensor) else [t.cpu() for t in v] for k, v in named.items()
        }

    def check_penalty(self, ops: Any, center: float, one_sided: bool) -> None:
        got = self.by_kernels(ops, center, one_sided)
        truth = self.penalty(torch.float64, center, one_sided)
        rival = self.penalty(self._rival, center, one_sided)
        for name, value in got.items():
            assert_close_to_reference(value, truth[name], rival[name], name)

    @property
    def _rival(self) -> torch.dtype:
        return torch.float32 if self.dtype == torch.float64 else self.dtype

    def check_interpolate(self, ops: Any, seed: Tensor) -> None:
        for real, fake in zip(self.first, self.second, strict=True):
            for pair in ((real, fake), (real, None), (None, real)):
                got = ops.interpolate(*pair, seed)
                assert got.stride() == real.stride()
                truth, rival = (self.points(*pair, seed, d) for d in (torch.float64, self._rival))
                assert_close_to_reference(got.cpu(), truth, rival)

    def check_at_the_center(self, ops: Any) -> None:
        """At a norm of 1 torch takes the one-sided derivative from above. Needs two samples."""
        for sample in (0, 1):
            self.first[0][sample] = 0
            self.first[0][sample].view(-1)[sample] = 1 - 2 * sample
        self.check_penalty(ops, 1.0, True)

    def check_wanted(self, ops: Any, center: float) -> None:
        """Unwanted results come back with shape (0,); the wanted ones do not change."""
        both = self.by_kernels(ops, center, False)
        _, norms = ops.penalty_forward(self.first, center, False)
        for wanted in ([True, False], [False, True], [False, False]):
            of_s, of_g = ops.penalty_double_backward(
                self.second, self.grad_value, self.first, norms, center, False, wanted
            )
            assert torch.equal(of_s.cpu(), both["of s"] if wanted[0] else torch.empty(0))
            for got, expected in zip(of_g, both["of g"], strict=True):
                assert torch.equal(got.cpu(), expected if wanted[1] else torch.empty(0))

    def check_scaled(self, ops: Any, scale: float) -> None:
        """The factors of a tiny gradient overflow, but they multiply zero or tiny numbers."""
        self.first[0] *= scale
        self.first[0][:, ::2] = 0
        self.second[0] *= 1e-3
        got = self.by_kernels(ops, 1.0, False)
        truth = self.penalty(torch.float64, 1.0, False)
        for name, value in got.items():
            assert_close_to_reference(value, truth[name], None, name)

    def check_extremes(self, ops: Any) -> None:
        """No NaN where a factor leaves the range; NaN and infinity, which a GradScaler looks for,
        where they belong. Of two samples in float32."""
        x, v = self.first[0], self.second[0]
        x[0, 1] = torch.nan
        value, norms = ops.penalty_forward([x], 1.0, True)
        assert torch.isnan(value)
        assert torch.isnan(norms[0])
        assert torch.isfinite(norms[1])
        (backward,) = ops.penalty_backward(self.grad_value, [x], norms, 1.0, False)
        assert torch.isnan(backward[0]).all()
        infinite = torch.full_like(self.grad_value, torch.inf)
        assert torch.isinf(ops.penalty_backward(infinite, [x], norms, 1.0, False)[0][1]).all()

        x.zero_()
        x[0, 0] = 1e-37
        norms = torch.tensor([1e-37, 0.0], device=self.device)
        arguments = (self.grad_value, [x], norms, 1.0, False)
        (backward,) = ops.penalty_backward(*arguments)
        of_s, (of_g,) = ops.penalty_double_backward([v * 1e3], *arguments, [True, True])
        for values in (backward, of_s, of_g):
            assert not torch.isnan(values).any()
        assert not backward[1].any()
        assert not of_g[1].any()
        assert (of_g[0, 1:] / v[0, 1:] < -1e36).all()
