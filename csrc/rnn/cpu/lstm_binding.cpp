// The LSTM's ops on the CPU: checks the tensors, allocates the results, calls the kernels.
#include <torch/csrc/stable/library.h>

#include <string>
#include <tuple>
#include <vector>

#include "../../common/cpu/tensors.h"
#include "../../common/dispatch.h"
#include "../lstm.h"

namespace ganlstm {
namespace {

// The sizes of a call, the order of its rows, and checks of tensors against the sizes.
class Layer {
 public:
  Layer(const Tensor& x, const std::vector<Tensor>& weights, const Tensor& h0, const Tensor& c0,
        const OptionalTensor& lengths)
      : x_(x) {
    check_dim(x, "x", 3, "(T, B, I)");
    check_dim(h0, "h0", 3, "(D, B, H)");
    check_device(x, "x", kCPU);
    shape_.steps = x.size(0);
    shape_.batch = x.size(1);
    shape_.input = x.size(2);
    shape_.directions = h0.size(0);
    shape_.hidden = h0.size(2);
    shape_.lengths = nullptr;
    shape_.order = nullptr;
    check(shape_.steps >= 1, "x: expected at least one time step, got shape ", shape_text(x));
    check(shape_.directions == 1 || shape_.directions == 2,
          "h0: expected one or two directions, got shape ", shape_text(h0));
    per_direction_ = int64_t(weights.size()) / shape_.directions;
    check((per_direction_ == 2 || per_direction_ == 4) &&
              per_direction_ * shape_.directions == int64_t(weights.size()),
          "weights: expected 2 or 4 tensors for each of ", shape_.directions, " directions, got ",
          weights.size());
    contiguous(x, "x");
    contiguous(state(h0, "h0"), "h0");
    contiguous(state(c0, "c0"), "c0");
    check_weights(weights, "weights");
    if (lengths.has_value()) set_lengths(*lengths);
  }

  const LayerShape& shape() const { return shape_; }
  int64_t per_direction() const { return per_direction_; }
  ScalarType dtype() const { return x_.scalar_type(); }
  // Of the gates and states that one pass saves for the next.
  ScalarType saved_dtype() const { return compute_dtype(dtype()); }

  const Tensor& state(const Tensor& t, const char* name) const {
    check_shape(t, name, {shape_.directions, shape_.batch, shape_.hidden}, "(D, B, H)");
    return t;
  }
  const Tensor& steps(const Tensor& t, const char* name, int64_t gates) const {
    check_shape(t, name, {shape_.steps, shape_.batch, shape_.directions, gates * shape_.hidden},
                gates == 1 ? "(T, B, D, H)" : "(T, B, D, 4H)");
    return t;
  }
  const Tensor& windows(const Tensor& t, const char* name, int64_t window) const {
    check_shape(t, name,
                {(shape_.steps - 1) / window, shape_.directions, shape_.batch, shape_.hidden},
                "((T - 1) / window, D, B, H)");
    return t;
  }
  const Tensor& output(const Tensor& t, const char* name) const {
    check_shape(t, name, {shape_.steps, shape_.batch, shape_.directions * shape_.hidden},
                "(T, B, D*H)");
    return t;
  }
  const Tensor& input(const Tensor& t, const char* name) const {
    check_shape(t, name, {shape_.steps, shape_.batch, shape_.input}, "(T, B, I)");
    return t;
  }
  const Tensor& weight(const Tensor& t, const char* name, int64_t kind) const {
    const int64_t gates = 4 * shape_.hidden;
    if (kind == 0)
      check_shape(t, name, {gates, shape_.input}, "(4H, I)");
    else if (kind == 1)
      check_shape(t, name, {gates, shape_.hidden}, "(4H, H)");
    else
      check_shape(t, name, {gates}, "(4H,)");
    return t;
  }

  // Same dtype and device as x, and dense: the kernels read plain arrays.
  const Tensor& contiguous(const Tensor& t, const char* name) const {
    check_like(t, name, x_, "x");
    check(t.is_contiguous(), name, ": expected a contiguous tensor");
    return t;
  }

  // As `contiguous`, for gates and states that another pass saved.
  void saved(const Tensor& t, const char* name) const {
    check(t.scalar_type() == saved_dtype(), name, ": expected ", dtype_name(saved_dtype()),
          ", which is saved for x of ", dtype_name(dtype()), ", got ", dtype_name(t.scalar_type()));
    check_device(t, name, kCPU);
    check(t.is_contiguous(), name, ": expected a contiguous tensor");
  }

  void check_weights(const std::vector<Tensor>& weights, const char* name) const {
    for (size_t k = 0; k < weights.size(); ++k)
      contiguous(weight(weights[k], name, int64_t(k) % per_direction_), name);
  }

  Tensor empty(std::initializer_list<int64_t> sizes) const { return empty(sizes, dtype()); }
  Tensor empty(std::initializer_list<int64_t> sizes, ScalarType dtype) const {
    return torch::stable::new_empty(
        x_, torch::headeronly::IntHeaderOnlyArrayRef(sizes.begin(), sizes.size()), dtype);
  }
  Tensor absent() const { return absent_tensor(dtype()); }
  Tensor empty_state() const { return empty({shape_.directions, shape_.batch, shape_.hidden}); }
  // Comes from the pool: each training step allocates again what one pass saves for the next.
  Tensor empty_steps(int64_t gates, ScalarType dtype, bool wanted) const {
    if (!wanted) return absent_tensor(dtype);
    return pooled({shape_.steps, shape_.batch, shape_.directions, gates * shape_.hidden}, dtype);
  }
  Tensor empty_windows(int64_t window) const {
    return pooled({(shape_.steps - 1) / window, shape_.directions, shape_.batch, shape_.hidden},
                  saved_dtype());
  }
  Tensor empty_output() const {
    return empty({shape_.steps, shape_.batch, shape_.directions * shape_.hidden});
  }
  Tensor empty_input() const { return empty({shape_.steps, shape_.batch, shape_.input}); }

  // Gradients of the weights, with those of a kind that is not wanted empty.
  std::vector<Tensor> empty_weights(bool ih, bool hh, bool bias) const {
    const int64_t gates = 4 * shape_.hidden;
    std::vector<Tensor> result;
    for (int64_t d = 0; d < shape_.directions; ++d) {
      result.push_back(ih ? empty({gates, shape_.input}) : absent());
      result.push_back(hh ? empty({gates, shape_.hidden}) : absent());
      for (int64_t k = 2; k < per_direction_; ++k)
        result.push_back(bias ? empty({gates}) : absent());
    }
    return result;
  }

 private:
  Tensor pooled(std::initializer_list<int64_t> sizes, ScalarType dtype) const {
    int64_t strides[4], count = 1;
    for (size_t k = sizes.size(); k-- > 0; count *= sizes.begin()[k]) strides[k] = count;
    return pooled_tensor(int64_t(sizes.size()), sizes.begin(), strides, count, dtype);
  }

  void set_lengths(const Tensor& lengths) {
    check_device(lengths, "lengths", kCPU);
    check(lengths.scalar_type() == ScalarType::Long, "lengths: expected torch.int64, got ",
          dtype_name(lengths.scalar_type()));
    check_shape(lengths, "lengths", {shape_.batch}, "(B,)");
    check(lengths.is_contiguous(), "lengths: expected a contiguous tensor");
    lengths_ = lengths;
    shape_.lengths = lengths.const_data_ptr<int64_t>();
    for (int64_t b = 0; b < shape_.batch; ++b)
      check(shape_.lengths[b] >= 1 && shape_.lengths[b] <= shape_.steps,
            "lengths: expected values in 1..", shape_.steps, ", got ", shape_.lengths[b],
            " at index ", b);
    order_.resize(size_t(shape_.batch));
    order_by_length(shape_.lengths, shape_.batch, order_.data());
    shape_.order = order_.data();
  }

  const Tensor& x_;
  OptionalTensor lengths_;
  std::vector<int64_t> order_;
  LayerShape shape_;
  int64_t per_direction_;
};

template <typename T, typename Tensors>
void set_weights(LayerWeights<T> (&to)[2], const Tensors& from, int64_t per_direction) {
  for (size_t first = 0, d = 0; first < from.size(); first += size_t(per_direction), ++d)
    to[d] = {in<T>(from[first]), in<T>(from[first + 1]),
             per_direction == 4 ? in<T>(from[first + 2]) : nullptr,
             per_direction == 4 ? in<T>(from[first + 3]) : nullptr};
}

template <typename T>
void set_weight_grads(LayerWeightGrads<T> (&to)[2], const std::vector<Tensor>& from,
                      int64_t per_direction, bool ih, bool hh, bool bias) {
  bias = bias && per_direction == 4;
  for (size_t first = 0, d = 0; first < from.size(); first += size_t(per_direction), ++d)
    to[d] = {out<T>(from[first], ih), out<T>(from[first + 1], hh),
             bias ? out<T>(from[first + 2]) : nullptr, bias ? out<T>(from[first + 3]) : nullptr};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> forward(
    const Tensor& x, const std::vector<Tensor>& weights, const Tensor& h0, const Tensor& c0,
    const OptionalTensor& lengths, bool save, int64_t window, const std::string& impl) {
  check_impl(impl);
  const Layer layer(x, weights, h0, c0, lengths);
  check(window >= 0, "window: expected a number of steps or 0, got ", window);
  const bool whole = save && window == 0;
  const Tensor y = layer.empty_output(), h_last = layer.empty_state(), c_last = layer.empty_state();
  const Tensor gates = layer.empty_steps(4, layer.saved_dtype(), whole);
  const Tensor c = save && !whole ? layer.empty_windows(window)
                                  : layer.empty_steps(1, layer.saved_dtype(), whole);
  dispatch<float, double, BFloat16>(layer.dtype(), "x", [&](auto type) {
    using T = typename decltype(type)::type;
    LstmForward<T> args{};
    args.shape = layer.shape();
    set_weights(args.weights, weights, layer.per_direction());
    args.x = in<T>(x);
    args.h0 = in<T>(h0);
    args.c0 = in<T>(c0);
    args.y = out<T>(y);
    args.h_last = out<T>(h_last);
    args.c_last = out<T>(c_last);
    args.window = save ? window : 0;
    args.gates = out<Compute<T>>(gates, whole);
    args.c = out<Compute<T>>(c, save);
    lstm_forward(args, torch_threads());
  });
  return {y, h_last, c_last, gates, c};
}

std::tuple<Tensor, Tensor, Tensor, std::vector<Tensor>, Tensor, Tensor> backward(
    const OptionalTensor& grad_y, const OptionalTensor& grad_h_last,
    const OptionalTensor& grad_c_last, const Tensor& x, const std::vector<Tensor>& weights,
    const Tensor& h0, const Tensor& c0, const OptionalTensor& lengths, const Tensor& y,
    const Tensor& gates, const Tensor& c, const std::vector<bool>& wanted, bool save,
    int64_t window, const std::string& impl) {
  check_impl(impl);
  const Layer layer(x, weights, h0, c0, lengths);
  check(wanted.size() == 6, "wanted: expected 6 values, got ", wanted.size());
  if (grad_y.has_value()) layer.contiguous(layer.output(*grad_y, "grad_y"), "grad_y");
  if (grad_h_last.has_value())
    layer.contiguous(layer.state(*grad_h_last, "grad_h_last"), "grad_h_last");
  if (grad_c_last.has_value())
    layer.contiguous(layer.state(*grad_c_last, "grad_c_last"), "grad_c_last");
  layer.contiguous(layer.output(y, "y"), "y");
  check(window >= 0, "window: expected a number of steps or 0, got ", window);
  if (window == 0) layer.saved(layer.steps(gates, "gates", 4), "gates");
  layer.saved(window == 0 ? layer.steps(c, "c", 1) : layer.windows(c, "c", window), "c");

  const Tensor grad_x = wanted[0] ? layer.empty_input() : layer.absent();
  const Tensor grad_h0 = wanted[1] ? layer.empty_state() : layer.absent();
  const Tensor grad_c0 = wanted[2] ? layer.empty_state() : layer.absent();
  const auto grad_weights = layer.empty_weights(wanted[3], wanted[4], wanted[5]);
  const Tensor dz = layer.empty_steps(4, layer.dtype(), save);
  const Tensor d = layer.empty_steps(1, layer.saved_dtype(), save);
  dispatch<float, double, BFloat16>(layer.dtype(), "x", [&](auto type) {
    using T = typename decltype(type)::type;
    LstmBackward<T> args{};
    args.shape = layer.shape();
    set_weights(args.weights, weights, layer.per_direction());
    args.grad_y = in<T>(grad_y);
    args.grad_h_last = in<T>(grad_h_last);
    args.grad_c_last = in<T>(grad_c_last);
    args.x = in<T>(x);
    args.h0 = in<T>(h0);
    args.c0 = in<T>(c0);
    args.y = in<T>(y);
    args.window = window;
    args.gates = in<Compute<T>>(gates);
    args.c = in<Compute<T>>(c);
    args.grad_x = out<T>(grad_x, wanted[0]);
    args.grad_h0 = out<T>(grad_h0, wanted[1]);
    args.grad_c0 = out<T>(grad_c0, wanted[2]);
    set_weight_grads(args.grad_weights, grad_weights, layer.per_direction(), wanted[3], wanted[4],
                     wanted[5]);
    args.dz = out<T>(dz, save);
    args.d = out<Compute<T>>(d, save);
    lstm_backward(args, torch_threads());
  });
  return {grad_x, grad_h0, grad_c0, grad_weights, dz, d};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, std::vector<Tensor>> double_backward(
    const OptionalTensor& v_x, const OptionalTensor& v_h0, const OptionalTensor& v_c0,
    const std::vector<OptionalTensor>& v_weights, const OptionalTensor& grad_c_last,
    const Tensor& x, const std::vector<Tensor>& weights, const Tensor& h0, const Tensor& c0,
    const OptionalTensor& lengths, const Tensor& y, const Tensor& gates, const Tensor& c,
    const Tensor& dz, const Tensor& d, const std::vector<bool>& wanted, const std::string& impl) {
  check_impl(impl);
  const Layer layer(x, weights, h0, c0, lengths);
  check(wanted.size() == 9, "wanted: expected 9 values, got ", wanted.size());
  check(v_weights.size() == weights.size(), "v_weights: expected ", weights.size(),
        " tensors as weights has, got ", v_weights.size());
  if (v_x.has_value()) layer.contiguous(layer.input(*v_x, "v_x"), "v_x");
  if (v_h0.has_value()) layer.contiguous(layer.state(*v_h0, "v_h0"), "v_h0");
  if (v_c0.has_value()) layer.contiguous(layer.state(*v_c0, "v_c0"), "v_c0");
  for (size_t k = 0; k < v_weights.size(); ++k)
    if (v_weights[k].has_value())
      layer.contiguous(layer.weight(*v_weights[k], "v_weights", int64_t(k) % layer.per_direction()),
                       "v_weights");
  if (grad_c_last.has_value())
    layer.contiguous(layer.state(*grad_c_last, "grad_c_last"), "grad_c_last");
  layer.contiguous(layer.output(y, "y"), "y");
  layer.saved(layer.steps(gates, "gates", 4), "gates");
  layer.saved(layer.steps(c, "c", 1), "c");
  layer.contiguous(layer.steps(dz, "dz", 4), "dz");
  layer.saved(layer.steps(d, "d", 1), "d");

  // Not only if it is wanted: it is also the tangent of h, which the pass needs.
  const Tensor g_grad_y = layer.empty_output();
  const Tensor g_grad_h_last = wanted[1] ? layer.empty_state() : layer.absent();
  const Tensor g_grad_c_last = wanted[2] ? layer.empty_state() : layer.absent();
  const Tensor g_x = wanted[3] ? layer.empty_input() : layer.absent();
  const Tensor g_h0 = wanted[4] ? layer.empty_state() : layer.absent();
  const Tensor g_c0 = wanted[5] ? layer.empty_state() : layer.absent();
  const auto g_weights = layer.empty_weights(wanted[6], wanted[7], wanted[8]);
  dispatch<float, double, BFloat16>(layer.dtype(), "x", [&](auto type) {
    using T = typename decltype(type)::type;
    LstmDoubleBackward<T> args{};
    args.shape = layer.shape();
    set_weights(args.weights, weights, layer.per_direction());
    set_weights(args.v_weights, v_weights, layer.per_direction());
    args.v_x = in<T>(v_x);
    args.v_h0 = in<T>(v_h0);
    args.v_c0 = in<T>(v_c0);
    args.grad_c_last = in<T>(grad_c_last);
    args.x = in<T>(x);
    args.h0 = in<T>(h0);
    args.c0 = in<T>(c0);
    args.y = in<T>(y);
    args.gates = in<Compute<T>>(gates);
    args.c = in<Compute<T>>(c);
    args.dz = in<T>(dz);
    args.d = in<Compute<T>>(d);
    args.g_grad_y = out<T>(g_grad_y);
    args.g_grad_h_last = out<T>(g_grad_h_last, wanted[1]);
    args.g_grad_c_last = out<T>(g_grad_c_last, wanted[2]);
    args.g_x = out<T>(g_x, wanted[3]);
    args.g_h0 = out<T>(g_h0, wanted[4]);
    args.g_c0 = out<T>(g_c0, wanted[5]);
    set_weight_grads(args.g_weights, g_weights, layer.per_direction(), wanted[6], wanted[7],
                     wanted[8]);
    lstm_double_backward(args, torch_threads());
  });
  return {wanted[0] ? g_grad_y : layer.absent(),
          g_grad_h_last,
          g_grad_c_last,
          g_x,
          g_h0,
          g_c0,
          g_weights};
}

}  // namespace
}  // namespace ganlstm

STABLE_TORCH_LIBRARY_IMPL(ganlstm_fast, CPU, m) {
  m.impl("lstm_forward", TORCH_BOX(&ganlstm::forward));
  m.impl("lstm_backward", TORCH_BOX(&ganlstm::backward));
  m.impl("lstm_double_backward", TORCH_BOX(&ganlstm::double_backward));
}
