"""Drop-in layers for ``torch.nn.LSTM`` and ``torch.nn.LSTMCell``."""

from __future__ import annotations

import functools
import operator
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.types import Device

from ganlstm_fast.nn.drop_in import NotQuantized
from ganlstm_fast.nn.masks import Lengths
from ganlstm_fast.ops.dynamo import let_dynamo_trace, outside_of_graphs
from ganlstm_fast.ops.functions import is_autocast, records
from ganlstm_fast.ops.lstm import fit, torch_impl
from ganlstm_fast.ops.lstm.function import lstm, lstm_cell, work_of
from ganlstm_fast.ops.validation import check_lengths

if TYPE_CHECKING:
    from ganlstm_fast.nn.drop_in import called_as

State = tuple[Tensor, Tensor]
Outputs = tuple[Tensor, Tensor, Tensor]


def _autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in autocast's dtype where autocast is on, as torch's LSTM takes them."""
    if not is_autocast(tensors[0].device.type):
        return tensors
    dtype = torch.get_autocast_dtype(tensors[0].device.type)
    return tuple(t if t.dtype == torch.float64 else t.to(dtype) for t in tensors)


def _in_dtype_of(c0: Tensor, results: Sequence[Tensor]) -> Sequence[Tensor]:
    """What a cell or a packed sequence returns under autocast on the CPU.

    There torch casts only what enters the products of these two, and the state keeps its dtype.
    """
    if c0.device.type != "cpu" or results[-1].dtype == c0.dtype:
        return results
    return [t.to(c0.dtype) for t in results]


def _check_states(input: Tensor, hx: State) -> None:
    """The checks that torch's LSTM leaves to its kernels; shapes are already checked."""
    if isinstance(hx, Tensor):
        raise TypeError("hx: expected a tuple (h_0, c_0), got a Tensor")
    if len(hx) != 2:
        raise RuntimeError(f"lstm expects two hidden states, got {len(hx)}")
    for name, state in zip(("h_0", "c_0"), hx, strict=True):
        if state.dtype != input.dtype and not is_autocast(input.device.type):
            raise RuntimeError(f"{name}: expected {input.dtype} of the input, got {state.dtype}")


class FastLSTM(nn.LSTM):
    """``torch.nn.LSTM`` on fused kernels: first and second order gradients, lengths in the kernel.

    Constructor, parameter names and shapes, initialisation, ``state_dict``, inputs (with or without
    a batch dimension, or a ``PackedSequence``), outputs and errors are those of ``torch.nn.LSTM``.
    With ``proj_size > 0``, for which there is no kernel, it runs torch's LSTM;
    :func:`ganlstm_fast.explain` tells what runs. A third derivative raises ``RuntimeError``.

    Args:
        recompute: save memory for the time of one more forward, see :func:`ganlstm_fast.lstm`.
        impl: see :mod:`ganlstm_fast.ops.backends`; None is the default in force.
        others: as for ``torch.nn.LSTM``.
    """

    qconfig = NotQuantized("nn.LSTM")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        recompute: bool = False,
        impl: str | None = None,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            device,
            dtype,
        )
        if recompute and self.proj_size > 0:
            raise ValueError("recompute: expected False with proj_size > 0, which has no kernel")
        self.recompute = recompute
        self.impl = impl

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("impl", None)
        self.__dict__.setdefault("recompute", False)
        # A copy's weights are not contiguous in memory, and cuDNN would pack them at every call.
        self.flatten_parameters()

    def extra_repr(self) -> str:
        return super().extra_repr() + (", recompute=True" if self.recompute else "")

    def _init_flat_weights(self) -> None:
        if not parametrize.is_parametrized(self):
            return super()._init_flat_weights()
        # torch's reads each weight by name, at each .to() and the like. That would run the
        # parametrizations (a power iteration), and keep results with a graph, which deepcopy
        # refuses. Here only the dtype of these is read.
        self._flat_weights = [self._stored(name) for name in self._flat_weights_names]
        self._flat_weight_refs = [w if w is None else weakref.ref(w) for w in self._flat_weights]

    def _weights_have_changed(self) -> bool:
        # torch's reads each weight by name as well, before a file is written.
        stored = map(self._stored, self._flat_weights_names)
        held = (None if ref is None else ref() for ref in self._flat_weight_refs)
        return any(map(operator.is_not, stored, held))

    def _stored(self, name: str) -> Tensor | None:
        """The tensor that is stored for a weight: under a parametrization what it is made of."""
        if not parametrize.is_parametrized(self, name):
            return getattr(self, name, None)
        chain = self.parametrizations[name]
        return chain.original if chain.is_tensor else chain.original0

    def flatten_parameters(self) -> None:
        # cuDNN's one chunk of memory: weights that are computed at each call are not in it.
        if not parametrize.is_parametrized(self):
            super().flatten_parameters()

    @overload
    def forward(
        self, input: Tensor, hx: State | None = None, *, lengths: Lengths | None = None
    ) -> tuple[Tensor, State]: ...

    @overload
    def forward(
        self, input: PackedSequence, hx: State | None = None, *, lengths: None = None
    ) -> tuple[PackedSequence, State]: ...

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: State | None = None,
        *,
        lengths: Lengths | None = None,
    ) -> tuple[Tensor | PackedSequence, State]:
        """Run the sequence.

        Args:
            input: (T, B, I), with ``batch_first`` (B, T, I), or (T, I), or a ``PackedSequence``.
            hx: (h_0, c_0), each (layers * directions, B, H), without B for a (T, I) input.
            lengths: (B,) integers in 1..T for a padded batch. Steps after a sequence's end are not
                read and their output is 0. The same numbers as for a ``PackedSequence``, without
                packing.

        Returns:
            output, (h_n, c_n) as ``torch.nn.LSTM``.
        """
        if isinstance(input, PackedSequence):
            if lengths is not None:
                raise ValueError("lengths: expected None with a PackedSequence, which has its own")
            return self._forward_packed(input, hx)
        if input.dim() not in (2, 3):
            raise ValueError(f"LSTM: Expected input to be 2D or 3D, got {input.dim()}D instead")
        batched = input.dim() == 3
        batch_dim = 0 if self.batch_first else 1
        if hx is not None and (hx[0].dim() != input.dim() or hx[1].dim() != input.dim()):
            kind = f"{'' if batched else 'un'}batched {input.dim()}-D"
            raise RuntimeError(
                f"For {kind} input, hx and cx should also be {input.dim()}-D but got "
                f"({hx[0].dim()}-D, {hx[1].dim()}-D) tensors"
            )
        if not batched:
            input = input.unsqueeze(batch_dim)
            hx = None if hx is None else (hx[0].unsqueeze(1), hx[1].unsqueeze(1))
        if hx is None:
            self.check_input(input, None)
            hx = self._zeros(input, input.size(batch_dim))
        else:
            self.check_forward_args(input, hx, None)
            _check_states(input, hx)
        if input.size(1 - batch_dim) == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        if lengths is not None:
            lengths = check_lengths(lengths, input.size(batch_dim), input.size(1 - batch_dim))
        y, h, c = self._stack(input, hx, lengths)
        if not batched:
            return y.squeeze(batch_dim), (h.squeeze(1), c.squeeze(1))
        return y, (h, c)

    if TYPE_CHECKING:

        @called_as(forward)
        def __call__(self) -> Any: ...

    def _forward_packed(
        self, input: PackedSequence, hx: State | None
    ) -> tuple[PackedSequence, State]:
        data, batch_sizes, sorted_indices, unsorted_indices = input
        if hx is None:
            hx = self._zeros(data, int(batch_sizes[0]))
        else:
            hx = self.permute_hidden(hx, sorted_indices)
        self.check_forward_args(data, hx, batch_sizes)
        _check_states(data, hx)
        y, h, c = _in_dtype_of(hx[1], self._stack(data, hx, None, batch_sizes))
        # Not _replace: Dynamo turns it into an empty tuple.
        output = PackedSequence(y, batch_sizes, sorted_indices, unsorted_indices)
        return output, self.permute_hidden((h, c), unsorted_indices)

    def _zeros(self, like: Tensor, batch: int) -> State:
        rows = self.num_layers * (2 if self.bidirectional else 1)
        c = like.new_zeros(rows, batch, self.hidden_size)
        # Nothing writes to a state, so one tensor serves as both.
        return (like.new_zeros(rows, batch, self.proj_size) if self.proj_size else c), c

    def _stack(
        self, x: Tensor, hx: State, lengths: Tensor | None, batch_sizes: Tensor | None = None
    ) -> Outputs:
        """All layers on a batch in the layer's layout, or on the data of a packed one."""
        batch_first = self.batch_first and batch_sizes is None
        if self.proj_size > 0:
            x, h0, c0, *flat = _autocast(x, *hx, *self._flat())
            return self._in_one_call(x, h0, c0, lengths, batch_sizes, flat, batch_first)
        if self._can_be_one_call(x):
            x, h0, c0, *flat = _autocast(x, *hx, *self._flat())
            work = work_of(records(x, h0, c0, *flat), False, lengths)
            name = fit.choose(self.impl, x, self.hidden_size, work)
            if name == "torch":
                return self._in_one_call(x, h0, c0, lengths, batch_sizes, flat, batch_first)
            weights_of = self._grouped(flat)
            options: dict[str, Any] = {"dropout": 0.0, "recompute": False, "impl": name}
        else:
            x, h0, c0 = _autocast(x, *hx)
            weights_of = self._weights
            options = {"dropout": self._dropped, "recompute": self.recompute, "impl": self.impl}
        if batch_first:
            x = x.transpose(0, 1)
        y, h, c = self._layers(x, h0, c0, lengths, batch_sizes, weights_of, **options)
        return (y.transpose(0, 1) if batch_first else y), h, c

    def _layers(
        self,
        x: Tensor,
        h0: Tensor,
        c0: Tensor,
        lengths: Tensor | None,
        batch_sizes: Tensor | None,
        weights_of: Callable[[int], Sequence[Tensor]],
        *,
        dropout: float,
        recompute: bool,
        impl: str | None,
    ) -> Outputs:
        """One after the other, time-major. ``weights_of(k)``: of layer and direction ``k``."""
        options: dict[str, Any] = {"recompute": recompute, "impl": impl}
        if batch_sizes is not None:
            x, lengths = pad_packed_sequence(PackedSequence(x, batch_sizes))
            options["dropout"] = dropout
            y, h, c = self._layers(x, h0, c0, lengths, None, weights_of, **options)
            return pack_padded_sequence(y, lengths).data, h, c
        directions = 2 if self.bidirectional else 1
        last_h, last_c = [], []
        for layer in range(self.num_layers):
            h, c = h0, c0
            rows = range(layer * directions, (layer + 1) * directions)
            if self.num_layers > 1:
                h, c = h0[rows.start : rows.stop], c0[rows.start : rows.stop]
            weights = [weights_of(k) for k in rows]
            x, h, c = lstm(x, weights, h, c, lengths=lengths, **options)
            last_h.append(h)
            last_c.append(c)
            if layer < self.num_layers - 1 and dropout:
                x = F.dropout(x, dropout)
        if self.num_layers == 1:
            return x, last_h[0], last_c[0]
        return x, torch.cat(last_h), torch.cat(last_c)

    @property
    def _dropped(self) -> float:
        """The share that is dropped between layers at this call."""
        return self.dropout if self.training and self.num_layers > 1 else 0.0

    def _can_be_one_call(self, x: Tensor) -> bool:
        """Whether torch's LSTM may run all layers in one call, as cuDNN lays out their weights.

        Not on a CPU, where it gains nothing; not where a second order would have to repeat the
        dropout between layers; and not with ``recompute``, under a transform of torch.func or in a
        graph. There each layer chooses by itself.
        """
        if not x.is_cuda or self._dropped or self.recompute or torch.compiler.is_compiling():
            return False
        return torch._C._functorch.peek_interpreter_stack() is None

    @outside_of_graphs(torch_impl.GRAPH_BREAK)
    def _in_one_call(
        self,
        x: Tensor,
        h0: Tensor,
        c0: Tensor,
        lengths: Tensor | None,
        batch_sizes: Tensor | None,
        flat: Sequence[Tensor],
        batch_first: bool,
    ) -> Outputs:
        """torch's LSTM on all layers."""
        # Not through torch's forward, which reads each weight two to four times, and a
        # parametrization runs at each.
        x, h0, c0, *flat = [t.contiguous() for t in (x, h0, c0, *flat)]
        directions = 2 if self.bidirectional else 1
        again = functools.partial(self._again, batch_first and lengths is None)

        def run(x: Tensor, batch_sizes: Tensor | None, h0: Tensor, c0: Tensor) -> Outputs:
            outputs = torch_impl.torch_lstm(
                x,
                batch_sizes,
                h0,
                c0,
                flat,
                bias=self.bias,
                layers=self.num_layers,
                directions=directions,
                dropout=self._dropped,
                batch_first=batch_first,
            )
            if self.proj_size > 0:
                return outputs
            inputs = (x, h0, c0, *flat)
            return torch_impl.with_second_order(outputs, again, None, batch_sizes, inputs)

        if lengths is None:
            return run(x, batch_sizes, h0, c0)
        return torch_impl.packed_by_lengths(run, x, lengths, h0, c0, batch_first)

    def _again(
        self,
        batch_first: bool,
        lengths: Tensor | None,
        batch_sizes: Tensor | None,
        x: Tensor,
        h0: Tensor,
        c0: Tensor,
        *flat: Tensor,
    ) -> Outputs:
        """All layers once more, with a graph that can be differentiated twice.

        Without dropout and ``recompute``, whatever the layer's modes are by now: layers with these
        never run in one call.
        """
        impl = fit.second_order(x, self.hidden_size) or "reference"
        options: dict[str, Any] = {"dropout": 0.0, "recompute": False, "impl": impl}
        if batch_first:
            x = x.transpose(0, 1)
        y, h, c = self._layers(x, h0, c0, lengths, batch_sizes, self._grouped(flat), **options)
        return (y.transpose(0, 1) if batch_first else y), h, c

    def _grouped(self, flat: Sequence[Tensor]) -> Callable[[int], Sequence[Tensor]]:
        """The weights of a layer and direction, of all in one list."""
        count = len(flat) // len(self._all_weights)
        return lambda k: flat[k * count : (k + 1) * count]

    def _flat(self) -> list[Tensor]:
        # By name at each call, so that parametrizations, weight drop and tying work: one that is
        # not a parameter is an attribute, and slower to read.
        stored: dict[str, Any] = self._parameters
        return [
            stored[name] if name in stored else getattr(self, name)
            for name in self._flat_weights_names
        ]

    def _weights(self, index: int) -> tuple[Tensor, ...]:
        """Of a layer and direction."""
        return _autocast(*[getattr(self, name) for name in self._all_weights[index]])


let_dynamo_trace(FastLSTM)


class FastLSTMCell(nn.LSTMCell):
    """``torch.nn.LSTMCell``: on a CPU a fused kernel where no gradient is recorded, else torch's.

    See :func:`ganlstm_fast.lstm_cell`; for a sequence that is known beforehand, ``FastLSTM`` is
    several times faster than a loop over either.

    Args:
        impl: see :mod:`ganlstm_fast.ops.backends`; None is the default in force.
        others: as for ``torch.nn.LSTMCell``.
    """

    qconfig = NotQuantized("nn.LSTMCell")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        impl: str | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, device, dtype)
        self.impl = impl

    def forward(self, input: Tensor, hx: State | None = None) -> State:
        """One step: input (B, I) or (I,), hx a pair of (B, H) or (H,), to the next (h, c)."""
        if input.dim() not in (1, 2):
            raise ValueError(f"LSTMCell: Expected input to be 1D or 2D, got {input.dim()}D instead")
        if hx is not None:
            self._check_state(hx)
        if input.size(-1) != self.input_size:
            raise RuntimeError(
                f"input has inconsistent input_size: got {input.size(-1)} expected "
                f"{self.input_size}"
            )
        batched = input.dim() == 2
        x = input if batched else input.unsqueeze(0)
        if hx is None:
            h = c = x.new_zeros(x.size(0), self.hidden_size)
        else:
            h, c = hx if batched else (s.unsqueeze(0) for s in hx)
            self._check_sizes(x, h, c)
        weights = [self.weight_ih, self.weight_hh]
        if self.bias:
            weights += [self.bias_ih, self.bias_hh]
        x, h, c0, *weights = _autocast(x, h, c, *weights)
        for name, value in (("input", x), ("hx[0]", h), ("hx[1]", c0)):
            if value.dtype != weights[0].dtype:
                raise RuntimeError(
                    f"{name}: expected the dtype of the weights, {weights[0].dtype}, got "
                    f"{value.dtype}"
                )
        h, c = _in_dtype_of(c, lstm_cell(x, weights, h, c0, impl=self.impl))
        return (h, c) if batched else (h.squeeze(0), c.squeeze(0))

    if TYPE_CHECKING:

        @called_as(forward)
        def __call__(self) -> Any: ...

    def _check_state(self, hx: State) -> None:
        if isinstance(hx, Tensor):
            raise TypeError("LSTMCell: Expected hx to be a tuple (h, c), got a Tensor")
        for index, state in enumerate(hx):
            if state.dim() not in (1, 2):
                raise ValueError(
                    f"LSTMCell: Expected hx[{index}] to be 1D or 2D, got {state.dim()}D instead"
                )
        if len(hx) != 2:
            raise RuntimeError(f"LSTMCell: Expected hx to be a pair (h, c), got {len(hx)} tensors")

    def _check_sizes(self, x: Tensor, *states: Tensor) -> None:
        # In torch's words: code may match them to tell the two errors apart.
        for index, state in enumerate(states):
            if state.size(0) != x.size(0):
                raise RuntimeError(
                    f"Input batch size {x.size(0)} doesn't match hidden{index} batch size "
                    f"{state.size(0)}"
                )
            if state.dim() != 2 or state.size(1) != self.hidden_size:
                raise RuntimeError(
                    f"hidden{index} has inconsistent hidden_size: got {state.size(1)}, expected "
                    f"{self.hidden_size}"
                )
