// Every op's schema; those in Triton of the spectral norm and the gradient penalty have the same
// under names of their own (ganlstm_fast/ops/triton_ops.py). Implementations:
// <family>/binding_cpu.cpp and <family>/binding_cuda.cpp; autograd and fake tensors:
// ganlstm_fast/<family>/autograd.py.
//
// A result that is not wanted comes back as a tensor of shape (0,).
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(ganlstm_fast, m) {
  // The instruction set that the CPU kernels run on: "baseline", "avx2", "avx512" or
  // "avx512bf16".
  m.def("cpu_isa() -> str");

  // Whether the CUDA kernels run on a GPU, as common/probe.h has it: versions of CUDA, and what
  // went wrong, empty where nothing did.
  m.def("probe_gpu(int device) -> (int driver, int runtime, str error)");

  // Frees the memory that is held for the next call (common/pool.h).
  m.def("empty_cache() -> ()");

  // One LSTM layer over a sequence, as lstm/lstm.h has it. `weights`: weight_ih [4H,I],
  // weight_hh [4H,H], optionally bias_ih and bias_hh [4H], for each of D = 1 or 2 directions.
  // Shapes: x [T,B,I], h0 and c0 [D,B,H], lengths int64 [B] on the CPU, y [T,B,D*H],
  // h_last and c_last [D,B,H]; when `save`, gates [T,B,D,4H] and c [T,B,D,H], or, with a `window`
  // of steps, only c [(T-1)/window,D,B,H]. `impl` (all three): one of those of the device, as
  // backends.py names them; "" is any.
  m.def(
      "lstm_forward(Tensor x, Tensor[] weights, Tensor h0, Tensor c0, Tensor? lengths, bool save,"
      " int window=0, str impl=\"\") -> (Tensor y, Tensor h_last, Tensor c_last, Tensor gates, "
      "Tensor c)");

  // `wanted`: x, h0, c0, weight_ih, weight_hh, bias. When `save`, dz [T,B,D,4H] and d [T,B,D,H],
  // which the double backward needs. `window`: as in the forward that saved gates and c.
  m.def(
      "lstm_backward(Tensor? grad_y, Tensor? grad_h_last, Tensor? grad_c_last, Tensor x,"
      " Tensor[] weights, Tensor h0, Tensor c0, Tensor? lengths, Tensor y, Tensor gates, Tensor c,"
      " bool[] wanted, bool save, int window=0, str impl=\"\")"
      " -> (Tensor grad_x, Tensor grad_h0, Tensor grad_c0, Tensor[] grad_weights, Tensor dz,"
      " Tensor d)");

  // `v_*`: cotangents of the backward's results. `wanted`: grad_y, grad_h_last, grad_c_last, x, h0,
  // c0, weight_ih, weight_hh, bias.
  m.def(
      "lstm_double_backward(Tensor? v_x, Tensor? v_h0, Tensor? v_c0, Tensor?[] v_weights,"
      " Tensor? grad_c_last, Tensor x, Tensor[] weights, Tensor h0, Tensor c0, Tensor? lengths,"
      " Tensor y, Tensor gates, Tensor c, Tensor dz, Tensor d, bool[] wanted,"
      " str impl=\"\")"
      " -> (Tensor g_grad_y, Tensor g_grad_h_last, Tensor g_grad_c_last, Tensor g_x, Tensor g_h0,"
      " Tensor g_c0, Tensor[] g_weights)");

  // The recurrent part of these passes on a GPU, as lstm/steps.h has it, in place. `impl`: "cell",
  // a product and a kernel a step, or "cuda", one launch. Not differentiable.
  m.def(
      "lstm_forward_steps(Tensor z, Tensor? bias, Tensor weight_hh, Tensor? lengths, int first, "
      "int total,"
      " Tensor(a!) h, Tensor(b!) c, Tensor(c!) y, Tensor(d!)? gates, Tensor(e!)? c_all, bool tf32,"
      " str impl) -> ()");
  m.def(
      "lstm_backward_steps(Tensor? grad_y, Tensor weight_hh, Tensor? lengths, int first, int total,"
      " Tensor c_before, Tensor gates, Tensor c_all, Tensor(a!) n, Tensor(b!) e, Tensor(c!) dz,"
      " Tensor(d!)? d, bool tf32, str impl) -> ()");
  m.def(
      "lstm_tangent_forward_steps(Tensor z_, Tensor weight_hh, Tensor? lengths, Tensor c_before,"
      " Tensor gates, Tensor c_all, Tensor(a!) h_, Tensor(b!) c_, Tensor(c!) y_, Tensor(d!) gates_,"
      " Tensor(e!) c_all_, bool tf32, str impl) -> ()");
  m.def(
      "lstm_tangent_backward_steps(Tensor? extra, Tensor weight_hh, Tensor? lengths,"
      " Tensor c_before, Tensor c_before_, Tensor gates, Tensor c_all, Tensor d, Tensor gates_,"
      " Tensor c_all_, Tensor(a!) n_, Tensor(b!) e, Tensor(c!) e_, Tensor(d!) dz_, bool tf32,"
      " str impl) -> ()");

  // Why "cuda" cannot run H hidden units of an element's size on a device, the largest H that it
  // can, and what to use instead; empty where it can.
  m.def("lstm_why_not_cuda(int device, int hidden, int element) -> str");

  // Spectral normalisation of a list of weights of one dtype, as spectral_norm/spectral_norm.h has
  // it. `dims`: the outputs' dimension of each weight; u [h] and v [w] are its vectors, of
  // any floating dtype and not changed. Without `training` there is no iteration. `vectors`, in the
  // dtype of the sums: u and v after the iterations, of one weight after the other, then sigma of
  // each.
  m.def(
      "spectral_norm_forward(Tensor[] weights, Tensor[] u, Tensor[] v, int[] dims,"
      " int n_power_iterations, float eps, bool training)"
      " -> (Tensor[] normalized, Tensor vectors)");

  // The same with `training`, u and v being overwritten: for layers, of which many are so small
  // that copying two vectors takes as long as everything else.
  m.def(
      "spectral_norm_forward_(Tensor[] weights, Tensor(a!)[] u, Tensor(b!)[] v, int[] dims,"
      " int n_power_iterations, float eps) -> (Tensor[] normalized, Tensor vectors)");

  // The gradients of the weights, and `inner`, which the double backward needs. A weight whose grad
  // is absent is left out.
  m.def(
      "spectral_norm_backward(Tensor?[] grads, Tensor[] normalized, Tensor vectors, int[] dims,"
      " float eps) -> (Tensor[] grad_weights, Tensor inner)");

  // `v_weights`: cotangents of the backward's results. `wanted`: the grads and the weights.
  m.def(
      "spectral_norm_double_backward(Tensor?[] v_weights, Tensor?[] grads, Tensor[] normalized,"
      " Tensor vectors, Tensor inner, int[] dims, float eps, bool[] wanted)"
      " -> (Tensor[] g_grads, Tensor[] g_weights)");

  // The passes of the gradient penalty, as gradient_penalty/gradient_penalty.h has them, over
  // tensors [B,...] whose samples are dense in memory, the batch outermost: contiguous,
  // channels_last and the like. Results have the strides of what they belong to.

  // a real + (1 - a) fake; `seed`: int64 [1], on the tensors' device. One of the two may be absent:
  // it is zero. Tensors of one B that share their seed share a.
  m.def("interpolate(Tensor? real, Tensor? fake, Tensor seed) -> Tensor");

  // norms [B] and value [] in the dtype of the sums: float32, or float64 for float64.
  m.def(
      "penalty_forward(Tensor[] grads, float center, bool one_sided)"
      " -> (Tensor value, Tensor norms)");
  m.def(
      "penalty_backward(Tensor grad_value, Tensor[] grads, Tensor norms, float center,"
      " bool one_sided) -> Tensor[]");

  // `v_grads`: cotangents of the backward's results, with the strides of the grads; an absent one
  // is zero. `wanted`: grad_value, all of the grads.
  m.def(
      "penalty_double_backward(Tensor?[] v_grads, Tensor grad_value, Tensor[] grads, Tensor norms,"
      " float center, bool one_sided, bool[] wanted) -> (Tensor g_grad_value, Tensor[] g_grads)");
}
