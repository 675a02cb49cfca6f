"""Every operator's schema, once, with its contract in a sentence or two.

The compiled objects (csrc/*/*/*binding.cpp) and Python (``registry.py``) only implement them. Each
sentence names the header with the equations or the shapes in full. A result that is not wanted
comes back as a tensor of shape (0,). ``impl`` names an implementation of ``backends.py``; "" is
any that serves the tensors' device.
"""

from __future__ import annotations

NAMESPACE = "ganlstm_fast"

SCHEMAS = (
    # The instruction set that the CPU kernels run on: one of CPU_ISAS in backends.py.
    "cpu_isa() -> str",
    # Frees the memory that the CPU kernels hold for the next call (common/cpu/pool.h).
    "empty_cache() -> ()",
    # Whether the CUDA kernels run on a GPU (common/gpu/probe.h): versions of CUDA, and what went
    # wrong, empty where nothing did.
    "probe_gpu(int device) -> (int driver, int runtime, str error)",
    # One LSTM layer over a sequence (lstm.h). `weights`: weight_ih [4H,I], weight_hh [4H,H],
    # optionally bias_ih and bias_hh [4H], for each of D = 1 or 2 directions. Shapes: x [T,B,I],
    # h0 and c0 [D,B,H], lengths int64 [B] on the CPU, y [T,B,D*H], h_last and c_last [D,B,H]. When
    # `save`: gates [T,B,D,4H] and c [T,B,D,H]; with a `window` of steps c [(T-1)/window,D,B,H].
    "lstm_forward(Tensor x, Tensor[] weights, Tensor h0, Tensor c0, Tensor? lengths, bool save,"
    ' int window=0, str impl="")'
    " -> (Tensor y, Tensor h_last, Tensor c_last, Tensor gates, Tensor c)",
    # `wanted`: x, h0, c0, weight_ih, weight_hh, bias. When `save`: dz [T,B,D,4H] and d [T,B,D,H],
    # which the double backward needs. `window`: as in the forward that saved gates and c.
    "lstm_backward(Tensor? grad_y, Tensor? grad_h_last, Tensor? grad_c_last, Tensor x,"
    " Tensor[] weights, Tensor h0, Tensor c0, Tensor? lengths, Tensor y, Tensor gates, Tensor c,"
    ' bool[] wanted, bool save, int window=0, str impl="")'
    " -> (Tensor grad_x, Tensor grad_h0, Tensor grad_c0, Tensor[] grad_weights, Tensor dz,"
    " Tensor d)",
    # `v_*`: cotangents of the backward's results. `wanted`: grad_y, grad_h_last, grad_c_last, x,
    # h0, c0, weight_ih, weight_hh, bias.
    "lstm_double_backward(Tensor? v_x, Tensor? v_h0, Tensor? v_c0, Tensor?[] v_weights,"
    " Tensor? grad_c_last, Tensor x, Tensor[] weights, Tensor h0, Tensor c0, Tensor? lengths,"
    ' Tensor y, Tensor gates, Tensor c, Tensor dz, Tensor d, bool[] wanted, str impl="")'
    " -> (Tensor g_grad_y, Tensor g_grad_h_last, Tensor g_grad_c_last, Tensor g_x, Tensor g_h0,"
    " Tensor g_c0, Tensor[] g_weights)",
    # The recurrent part of these passes on a GPU (steps.h), in place and not differentiable.
    "lstm_forward_steps(Tensor z, Tensor? bias, Tensor weight_hh, Tensor? lengths, int first,"
    " int total, Tensor(a!) h, Tensor(b!) c, Tensor(c!) y, Tensor(d!)? gates, Tensor(e!)? c_all,"
    " bool tf32, str impl) -> ()",
    "lstm_backward_steps(Tensor? grad_y, Tensor weight_hh, Tensor? lengths, int first, int total,"
    " Tensor c_before, Tensor gates, Tensor c_all, Tensor(a!) n, Tensor(b!) e, Tensor(c!) dz,"
    " Tensor(d!)? d, bool tf32, str impl) -> ()",
    "lstm_tangent_forward_steps(Tensor z_, Tensor weight_hh, Tensor? lengths, Tensor c_before,"
    " Tensor gates, Tensor c_all, Tensor(a!) h_, Tensor(b!) c_, Tensor(c!) y_, Tensor(d!) gates_,"
    " Tensor(e!) c_all_, bool tf32, str impl) -> ()",
    "lstm_tangent_backward_steps(Tensor? extra, Tensor weight_hh, Tensor? lengths, Tensor c_before,"
    " Tensor c_before_, Tensor gates, Tensor c_all, Tensor d, Tensor gates_, Tensor c_all_,"
    " Tensor(a!) n_, Tensor(b!) e, Tensor(c!) e_, Tensor(d!) dz_, bool tf32, str impl) -> ()",
    # Why impl "cuda" cannot run H hidden units of an element's size on a device, the largest H that
    # it can, and what to use instead; empty where it can.
    "lstm_why_not_cuda(int device, int hidden, int element) -> str",
    # Spectral normalisation of a list of weights of one dtype (spectral_norm.h). `dims`: the
    # outputs' dimension of each weight; u [h] and v [w] are its vectors, of any floating dtype and
    # not changed. `training`: iterate first. `vectors`, in the dtype of the sums: u
    # and v after the iterations, of one weight after the other, then sigma of each.
    "spectral_norm_forward(Tensor[] weights, Tensor[] u, Tensor[] v, int[] dims,"
    ' int n_power_iterations, float eps, bool training, str impl="")'
    " -> (Tensor[] normalized, Tensor vectors)",
    # The same with `training`; u and v are overwritten. Many layers are so small that copying two
    # vectors takes as long as everything else.
    "spectral_norm_forward_(Tensor[] weights, Tensor(a!)[] u, Tensor(b!)[] v, int[] dims,"
    ' int n_power_iterations, float eps, str impl="") -> (Tensor[] normalized, Tensor vectors)',
    # The gradients of the weights, and `inner`, which the double backward needs. A weight whose
    # grad is absent is left out.
    "spectral_norm_backward(Tensor?[] grads, Tensor[] normalized, Tensor vectors, int[] dims,"
    ' float eps, str impl="") -> (Tensor[] grad_weights, Tensor inner)',
    # `v_weights`: cotangents of the backward's results. `wanted`: the grads, the weights.
    "spectral_norm_double_backward(Tensor?[] v_weights, Tensor?[] grads, Tensor[] normalized,"
    ' Tensor vectors, Tensor inner, int[] dims, float eps, bool[] wanted, str impl="")'
    " -> (Tensor[] g_grads, Tensor[] g_weights)",
    # The passes of the gradient penalty (gradient_penalty.h) take tensors [B,...] whose samples are
    # dense in memory, the batch outermost: contiguous, channels_last and the like. Results have the
    # strides of what they belong to.
    #
    # a real + (1 - a) fake; `seed`: int64 [1], on the tensors' device. One of the two may be
    # absent, which is zero. Tensors of one B that share their seed share a.
    'interpolate(Tensor? real, Tensor? fake, Tensor seed, str impl="") -> Tensor',
    # norms [B] and value [] in the dtype of the sums: float32, or float64 for float64.
    'penalty_forward(Tensor[] grads, float center, bool one_sided, str impl="")'
    " -> (Tensor value, Tensor norms)",
    "penalty_backward(Tensor grad_value, Tensor[] grads, Tensor norms, float center,"
    ' bool one_sided, str impl="") -> Tensor[]',
    # `v_grads`: cotangents of the backward's results, with the strides of the grads; an absent one
    # is zero. `wanted`: grad_value, all of the grads.
    "penalty_double_backward(Tensor?[] v_grads, Tensor grad_value, Tensor[] grads, Tensor norms,"
    ' float center, bool one_sided, bool[] wanted, str impl="")'
    " -> (Tensor g_grad_value, Tensor[] g_grads)",
)


def name_of(schema: str) -> str:
    return schema.partition("(")[0]


def schema_of(name: str) -> str:
    """The schema of an operator."""
    return next(schema for schema in SCHEMAS if name_of(schema) == name)


def overload(schema: str, impl: str) -> str:
    """The schema under which one implementation is registered, where a device has several."""
    arguments, _, results = schema.partition(', str impl="")')
    name, _, arguments = arguments.partition("(")
    return f"{name}.{impl}({arguments}){results}"
