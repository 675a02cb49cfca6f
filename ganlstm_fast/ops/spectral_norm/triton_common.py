"""What the spectral norm's Triton kernels share: the table of a call, and where a program finds its
part.

A pass takes all weights of a call in the same few launches. Each phase cuts every weight into
parts, by shape alone, so that the order of every sum is the same in every run; a program takes one
part. Shapes, places and addresses stand in a table on the device, int64 [fields, weights]: as
arguments they would need another kernel for each list of weights.

A weight is an array [A,h,B] as ``csrc/spectral_norm/spectral_norm.h`` has it: ``dim``, the outputs,
is the second dimension, and what lies before and after it has been flattened. As a matrix [h,w] it
has w = A * B columns, column a * B + b. Elements are counted in 64 bits, rows and columns in 32.
"""

from __future__ import annotations

import functools
import math
import operator
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ganlstm_fast.ops.functions import on_device

DTYPES = {
    torch.float32: tl.float32,
    torch.float64: tl.float64,
    torch.float16: tl.float16,
    torch.bfloat16: tl.bfloat16,
}

# The tile of W that a program multiplies at a time.
BLOCK_ROWS = 8
BLOCK_COLUMNS = 512
# The columns that a program sums, and the number of parts that it loads at a time.
BLOCK_SUMMED = 128
BLOCK_SHARES = 32
# Elements at a time of an array that is read element by element.
BLOCK_ELEMENTS = 2048
# Elements of u or v that a program normalises at a time.
BLOCK_VECTOR = 512
# Parts of a weight. With so few a program sums the results of all parts by one load.
MOST_PARTS = 512
WARPS = 8

# Fields of the table. An END counts the parts that a phase has up to this weight's last.
ROWS_END: tl.constexpr = tl.constexpr(0)
COLUMNS_END: tl.constexpr = tl.constexpr(1)
ELEMENTS_END: tl.constexpr = tl.constexpr(2)
ROWS: tl.constexpr = tl.constexpr(3)  # h
COLUMNS: tl.constexpr = tl.constexpr(4)  # w
INNER: tl.constexpr = tl.constexpr(5)  # B
ROW_BLOCKS: tl.constexpr = tl.constexpr(6)  # of a part
ELEMENT_BLOCKS: tl.constexpr = tl.constexpr(7)  # of a part
VECTORS: tl.constexpr = tl.constexpr(8)  # where u lies among all vectors; v follows
SHARES: tl.constexpr = tl.constexpr(9)  # where the parts' shares of W^T W v lie
INDEX: tl.constexpr = tl.constexpr(10)  # among the call's weights
SIGMA: tl.constexpr = tl.constexpr(11)  # where it lies, behind all vectors
ADDRESSES: tl.constexpr = tl.constexpr(12)  # from here on, as each pass has them


@dataclass(frozen=True, eq=False)
class Plan:
    """How the weights of a call are cut into parts, and the room that they take."""

    fields: array[int]  # the table up to the addresses
    count: int
    row_parts: int
    column_parts: int
    element_parts: int
    shares: int
    vectors: int  # of all weights, also of those that are left out


@functools.lru_cache(maxsize=256)
def _plan(
    shapes: tuple[torch.Size, ...], dims: tuple[int, ...], used: tuple[bool, ...], name: str
) -> Plan:
    weights: list[tuple[int, ...]] = []
    row_end = column_end = element_end = shares = vectors = 0
    for index, (shape, dim) in enumerate(zip(shapes, dims, strict=True)):
        rows, inner, elements = shape[dim], math.prod(shape[dim + 1 :]), shape.numel()
        if elements == 0:
            raise RuntimeError(f"{name}: expected an element or more, got shape {tuple(shape)}")
        columns = elements // rows
        if max(rows, columns) >= 2**31:
            raise RuntimeError(
                f"{name}: expected fewer than 2**31 rows and columns, got shape {tuple(shape)}"
            )
        if used[index]:
            row_blocks = _blocks_of_part(rows, BLOCK_ROWS)
            element_blocks = _blocks_of_part(elements, BLOCK_ELEMENTS)
            row_parts = triton.cdiv(rows, BLOCK_ROWS * row_blocks)
            row_end += row_parts
            column_end += triton.cdiv(columns, BLOCK_SUMMED)
            element_end += triton.cdiv(elements, BLOCK_ELEMENTS * element_blocks)
            sizes = rows, columns, inner, row_blocks, element_blocks
            weights.append((row_end, column_end, element_end, *sizes, vectors, shares, index))
            shares += row_parts * columns
        vectors += rows + columns
    fields = [value for field in zip(*weights, strict=True) for value in field]
    fields += [vectors + index for *_, index in weights]
    parts = row_end, column_end, element_end
    return Plan(array("q", fields), len(weights), *parts, shares, vectors)


def _blocks_of_part(size: int, block: int) -> int:
    return triton.cdiv(triton.cdiv(size, block), MOST_PARTS)


class Weights:
    """The weights of a call, and checks of tensors against them: the kernels get bare addresses."""

    def __init__(self, weights: Sequence[Tensor], name: str, dims: Sequence[int]) -> None:
        if not weights:
            raise RuntimeError(f"{name}: expected a tensor or more, got none")
        self.first = first = weights[0]
        self.weights, self.name, self.dims = weights, name, tuple(dims)
        if first.dtype not in DTYPES:
            raise RuntimeError(f"{name}: expected {_listed(DTYPES)}, got {first.dtype}")
        self.wide = torch.promote_types(first.dtype, torch.float32)
        self.check_count(dims, "dims")
        for weight, dim in zip(weights, dims, strict=True):
            self._check(weight, name, weight.shape, (first.dtype,))
            if not 0 <= dim < weight.dim():
                raise RuntimeError(f"dims: expected values in 0..{weight.dim() - 1}, got {dim}")

    def plan(self, used: Sequence[bool]) -> Plan:
        """For those that are ``used``."""
        shapes = tuple([weight.shape for weight in self.weights])
        return _plan(shapes, self.dims, tuple(used), self.name)

    def _check(
        self,
        tensor: Tensor,
        name: str,
        shape: torch.Size | tuple[int, ...],
        dtypes: tuple[torch.dtype, ...],
    ) -> None:
        if tensor.dtype not in dtypes:
            raise RuntimeError(f"{name}: expected {_listed(dtypes)}, got {tensor.dtype}")
        if tensor.device != self.first.device:
            raise RuntimeError(
                f"{name}: expected a tensor on {self.first.device}, got one on {tensor.device}"
            )
        if tensor.shape != shape:
            words = tuple(shape)
            if len(words) == 1:
                words = f"one dimension = ({words[0]})"
            raise RuntimeError(f"{name}: expected shape {words}, got {tuple(tensor.shape)}")
        if not tensor.is_contiguous():
            raise RuntimeError(f"{name}: expected a contiguous tensor")

    def check_count(self, values: Sequence[Any], name: str) -> None:
        count = len(self.weights)
        if len(values) != count:
            raise RuntimeError(
                f"{name}: expected {count} as there are {self.name}, got {len(values)}"
            )

    def check_arrays(self, arrays: Sequence[Tensor | None], name: str) -> None:
        self.check_count(arrays, name)
        for tensor, weight in zip(arrays, self.weights, strict=True):
            if tensor is not None:
                self._check(tensor, name, weight.shape, (weight.dtype,))

    def check_sums(self, sums: Tensor, name: str, size: int) -> None:
        self._check(sums, name, (size,), (self.wide,))

    def check_vectors(self, u: Sequence[Tensor], v: Sequence[Tensor]) -> None:
        """In the dtype of the weights or of the sums, each by itself."""
        self.check_count(u, "u")
        self.check_count(v, "v")
        dtypes = tuple({self.wide: None, self.first.dtype: None})
        for k, (weight, dim) in enumerate(zip(self.weights, self.dims, strict=True)):
            rows = weight.size(dim)
            self._check(u[k], "u", (rows,), dtypes)
            self._check(v[k], "v", (weight.numel() // max(1, rows),), dtypes)

    def empty(self, size: int, dtype: torch.dtype | None = None) -> Tensor:
        return self.first.new_empty(size, dtype=dtype or self.wide)

    def empty_arrays(self, wanted: Sequence[bool]) -> list[Tensor]:
        """Of the weights' shapes, or of shape (0,) where it is not wanted."""
        pairs = zip(self.weights, wanted, strict=True)
        return [torch.empty_like(w) if want else self.empty(0, w.dtype) for w, want in pairs]


def addresses(tensors: Sequence[Tensor], used: Sequence[bool]) -> list[int]:
    """Of the tensors that belong to the weights that are used."""
    return [t.data_ptr() for t, is_used in zip(tensors, used, strict=True) if is_used]


def _listed(dtypes: Iterable[torch.dtype]) -> str:
    return " or ".join(str(dtype) for dtype in dtypes)


class Launcher:
    """Launches of a pass, on the device and the current stream of its tensors.

    The table is made anew for each pass, in one copy that the host does not wait for: what it holds
    are addresses, and those of a call before may be another's by now.
    """

    def __init__(
        self, first: Tensor, plan: Plan, arrays: Sequence[int], others: Sequence[int] = ()
    ) -> None:
        """The table's addresses are ``arrays``, then ``others``, which need not be aligned.

        ``first``: one of the weights.
        """
        self._device = on_device(first)
        self._element = DTYPES[first.dtype]
        self._count = plan.count
        self.is_aligned = functools.reduce(operator.or_, arrays, 0) % 16 == 0
        values = torch.frombuffer(plan.fields + array("q", [*arrays, *others]), dtype=torch.int64)
        if first.is_cuda:
            # In a graph that is captured each replay copies it again: torch does not use pinned
            # memory for anything else that a captured copy has read.
            values = values.pin_memory()
        with self._device:
            self._table = values.to(first.device, non_blocking=True)

    def __call__(self, kernel: Any, programs: int, *arguments: Any, **constants: Any) -> None:
        with self._device:
            kernel[(programs,)](
                self._table,
                self._count,
                *arguments,
                **constants,
                ELEMENT=self._element,
                num_warps=WARPS,
            )


@triton.jit
def field(table_ptr, count, which: tl.constexpr, k):
    """Of weight k."""
    return tl.load(table_ptr + which * count + k)


@triton.jit
def parts_of(table_ptr, count, end: tl.constexpr, k):
    """From where to where the parts of weight k reach, in the phase of this END."""
    first = tl.load(table_ptr + end * count + k - 1, mask=k > 0, other=0)
    return first, field(table_ptr, count, end, k)


@triton.jit
def find_part(table_ptr, count, end: tl.constexpr, BLOCK: tl.constexpr = 64):
    """The weight whose part this program takes, and which of its parts that is."""
    program = tl.program_id(0)
    k = tl.zeros([], tl.int32)
    for first in range(0, count, BLOCK):
        index = first + tl.arange(0, BLOCK)
        ends = tl.load(table_ptr + end * count + index, mask=index < count, other=2**62)
        k += tl.sum((ends <= program).to(tl.int32), 0)
    first, _ = parts_of(table_ptr, count, end, k)
    return k, program - first


@triton.jit
def as_pointer(address, element: tl.constexpr, is_aligned: tl.constexpr):
    ptr = address.to(tl.pointer_type(element))
    if is_aligned:
        ptr = tl.multiple_of(ptr, 16)
    return ptr


@triton.jit
def load(ptr, at, end, is_whole):
    """The elements ``at`` before ``end``. ``is_whole``: all of them; under a mask each would be
    loaded by itself."""
    return tl.load(ptr + at) if is_whole else tl.load(ptr + at, mask=at < end, other=0.0)


@triton.jit
def store(ptr, at, values, end, is_whole):
    if is_whole:
        tl.store(ptr + at, values)
    else:
        tl.store(ptr + at, values, mask=at < end)


@triton.jit
def add_up(ptr, first, end, BLOCK: tl.constexpr = 512):
    """The sum of the elements from ``first`` to ``end``."""
    total = tl.zeros([BLOCK], ptr.dtype.element_ty)
    for begin in range(first, end, BLOCK):
        at = begin + tl.arange(0, BLOCK)
        total += tl.load(ptr + at, mask=at < end, other=0.0)
    return tl.sum(total, 0)


@triton.jit
def divide(x, y):
    if x.dtype == tl.float32:
        return tl.div_rn(x, y)  # the other is an approximation
    else:
        return x / y


@triton.jit
def divides(sigma, eps):
    """Whether sigma divides the weight; otherwise it is a constant 1 that does."""
    return tl.abs(sigma) > eps


@triton.jit
def outer_product(table_ptr, vectors_ptr, count, k, first, mask, BLOCK: tl.constexpr):
    """u_i v_j for the elements from ``first`` on."""
    rows = field(table_ptr, count, ROWS, k)
    inner = field(table_ptr, count, INNER, k)
    u_ptr = vectors_ptr + field(table_ptr, count, VECTORS, k)
    # Only the first element is divided in 64 bits, which takes long.
    segment = first // inner
    outer = segment // rows
    row = (segment - outer * rows).to(tl.uint32)
    within = (first - segment * inner).to(tl.uint32) + tl.arange(0, BLOCK).to(tl.uint32)
    segments = within // inner.to(tl.uint32)
    outers = (row + segments) // rows.to(tl.uint32)
    i = row + segments - outers * rows.to(tl.uint32)
    j = (outer.to(tl.uint32) + outers) * inner.to(tl.uint32) + within
    j -= segments * inner.to(tl.uint32)
    u = tl.load(u_ptr + i, mask=mask, other=0.0)
    return u * tl.load(u_ptr + rows + j, mask=mask, other=0.0)
