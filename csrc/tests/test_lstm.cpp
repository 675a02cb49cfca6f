// The three passes of the LSTM without torch, on the instruction set named on the command line:
// the forward against a loop in double, the backward against finite differences of that loop, the
// double backward against finite differences of the backward, float and bfloat16 against double,
// and a backward that computes its gates again against one that has them.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "common/cpu/isa.h"
#include "rnn/lstm.h"

namespace {

using ganlstm::BFloat16;
using ganlstm::LayerShape;
using Values = std::vector<double>;

int failures = 0;

// Tasks may run in any order, so they run in the opposite one.
const ganlstm::Parallel kReversed = {3,
                                     [](int64_t tasks, void (*task)(int64_t, void*), void* data) {
                                       for (int64_t index = tasks; index-- > 0;) task(index, data);
                                     }};

// Sizes of what is differentiated: x, h0, c0, and ih, hh, b_ih, b_hh of each direction; and of the
// outputs: y, h_last, c_last. Both are kept as one vector of doubles.
struct Layout {
  explicit Layout(const LayerShape& s) {
    const int64_t state = s.directions * s.batch * s.hidden, gates = 4 * s.hidden;
    inputs = {s.steps * s.batch * s.input, state, state};
    for (int64_t d = 0; d < s.directions; ++d)
      inputs.insert(inputs.end(), {gates * s.input, gates * s.hidden, gates, gates});
    outputs = {s.steps * s.batch * s.directions * s.hidden, state, state};
  }
  static int64_t total(const std::vector<int64_t>& sizes) {
    int64_t sum = 0;
    for (int64_t size : sizes) sum += size;
    return sum;
  }
  std::vector<int64_t> inputs, outputs;
};

// Consecutive arrays in T, cut from one vector of doubles, or full of NaN for a pass to write.
template <typename T>
struct Arrays {
  Arrays(const std::vector<int64_t>& sizes, const Values& values) {
    for (double value : values) data.push_back(ganlstm::narrow<T>(ganlstm::Compute<T>(value)));
    int64_t at = 0;
    for (int64_t size : sizes) {
      parts.push_back(data.data() + at);
      at += size;
    }
  }
  explicit Arrays(const std::vector<int64_t>& sizes)
      : Arrays(sizes, Values(Layout::total(sizes), std::numeric_limits<double>::quiet_NaN())) {}
  Arrays(const Arrays&) = delete;

  T* operator[](size_t k) { return parts[k]; }
  Values values() const {
    Values result;
    for (T value : data) result.push_back(ganlstm::widen(value));
    return result;
  }

  std::vector<T> data;
  std::vector<T*> parts;
};

template <typename T>
void set_weights(ganlstm::LayerWeights<T>* weights, int64_t directions, Arrays<T>& from) {
  for (int64_t d = 0; d < directions; ++d)
    weights[d] = {from[3 + 4 * d], from[4 + 4 * d], from[5 + 4 * d], from[6 + 4 * d]};
}

template <typename T>
void set_weights(ganlstm::LayerWeightGrads<T>* weights, int64_t directions, Arrays<T>& to) {
  for (int64_t d = 0; d < directions; ++d)
    weights[d] = {to[3 + 4 * d], to[4 + 4 * d], to[5 + 4 * d], to[6 + 4 * d]};
}

double sigmoid(double z) { return 1 / (1 + std::exp(-z)); }

Values naive_forward(const LayerShape& s, const Values& point) {
  const Layout layout(s);
  Arrays<double> in(layout.inputs, point);
  Arrays<double> out(layout.outputs, Values(Layout::total(layout.outputs), 0.0));
  const int64_t H = s.hidden;
  for (int64_t dir = 0; dir < s.directions; ++dir) {
    const double *ih = in[3 + 4 * dir], *hh = in[4 + 4 * dir];
    const double *b_ih = in[5 + 4 * dir], *b_hh = in[6 + 4 * dir];
    for (int64_t b = 0; b < s.batch; ++b) {
      const int64_t state = (dir * s.batch + b) * H;
      const int64_t steps = s.lengths ? s.lengths[b] : s.steps;
      Values h(in[1] + state, in[1] + state + H), c(in[2] + state, in[2] + state + H);
      for (int64_t k = 0; k < steps; ++k) {
        const int64_t t = dir == 0 ? k : steps - 1 - k;
        const double* x = in[0] + (t * s.batch + b) * s.input;
        Values z(4 * H);
        for (int64_t row = 0; row < 4 * H; ++row) {
          z[row] = b_ih[row] + b_hh[row];
          for (int64_t j = 0; j < s.input; ++j) z[row] += ih[row * s.input + j] * x[j];
          for (int64_t j = 0; j < H; ++j) z[row] += hh[row * H + j] * h[j];
        }
        for (int64_t j = 0; j < H; ++j) {
          c[j] = sigmoid(z[H + j]) * c[j] + sigmoid(z[j]) * std::tanh(z[2 * H + j]);
          h[j] = sigmoid(z[3 * H + j]) * std::tanh(c[j]);
          out[0][((t * s.batch + b) * s.directions + dir) * H + j] = h[j];
        }
      }
      for (int64_t j = 0; j < H; ++j) {
        out[1][state + j] = h[j];
        out[2][state + j] = c[j];
      }
    }
  }
  return out.values();
}

struct Results {
  Values outputs;           // y, h_last, c_last
  Values gradient;          // of <outputs, cotangent> with respect to the inputs
  Values second;            // of <gradient, v> with respect to the inputs
  Values second_cotangent;  // of <gradient, v> with respect to the cotangent
};

// With a window, no second order.
template <typename T>
Results run(const LayerShape& s, const Values& point, const Values& cotangent, const Values& v,
            int64_t window = 0) {
  const Layout layout(s);
  const int64_t rows = s.steps * s.batch * s.directions;
  Arrays<T> in(layout.inputs, point), out(layout.outputs);
  Arrays<ganlstm::Compute<T>> saved({rows * 4 * s.hidden, rows * s.hidden});
  if (window > 0) saved.parts[0] = nullptr;

  ganlstm::LstmForward<T> forward{};
  forward.shape = s;
  set_weights(forward.weights, s.directions, in);
  forward.x = in[0], forward.h0 = in[1], forward.c0 = in[2];
  forward.y = out[0], forward.h_last = out[1], forward.c_last = out[2];
  forward.window = window, forward.gates = saved[0], forward.c = saved[1];
  ganlstm::lstm_forward(forward, kReversed);

  Arrays<T> direction(layout.outputs, cotangent), grad(layout.inputs);
  Arrays<T> dz({rows * 4 * s.hidden});
  Arrays<ganlstm::Compute<T>> d({rows * s.hidden});
  ganlstm::LstmBackward<T> backward{};
  backward.shape = s;
  set_weights(backward.weights, s.directions, in);
  backward.grad_y = direction[0];
  backward.grad_h_last = direction[1];
  backward.grad_c_last = direction[2];
  backward.x = in[0], backward.h0 = in[1], backward.c0 = in[2];
  backward.y = out[0];
  backward.window = window, backward.gates = saved[0], backward.c = saved[1];
  backward.grad_x = grad[0], backward.grad_h0 = grad[1], backward.grad_c0 = grad[2];
  set_weights(backward.grad_weights, s.directions, grad);
  if (window == 0) backward.dz = dz[0], backward.d = d[0];
  ganlstm::lstm_backward(backward, kReversed);
  if (window > 0) return {out.values(), grad.values(), {}, {}};

  Arrays<T> tangent(layout.inputs, v), second(layout.inputs), second_cotangent(layout.outputs);
  ganlstm::LstmDoubleBackward<T> twice{};
  twice.shape = s;
  set_weights(twice.weights, s.directions, in);
  set_weights(twice.v_weights, s.directions, tangent);
  twice.v_x = tangent[0], twice.v_h0 = tangent[1], twice.v_c0 = tangent[2];
  twice.grad_c_last = direction[2];
  twice.x = in[0], twice.h0 = in[1], twice.c0 = in[2];
  twice.y = out[0], twice.gates = saved[0], twice.c = saved[1];
  twice.dz = dz[0], twice.d = d[0];
  twice.g_grad_y = second_cotangent[0];
  twice.g_grad_h_last = second_cotangent[1];
  twice.g_grad_c_last = second_cotangent[2];
  twice.g_x = second[0], twice.g_h0 = second[1], twice.g_c0 = second[2];
  set_weights(twice.g_weights, s.directions, second);
  ganlstm::lstm_double_backward(twice, kReversed);
  return {out.values(), grad.values(), second.values(), second_cotangent.values()};
}

double dot(const Values& a, const Values& b) {
  double sum = 0;
  for (size_t k = 0; k < a.size(); ++k) sum += a[k] * b[k];
  return sum;
}

Values moved(const Values& a, double step, const Values& direction) {
  Values result = a;
  for (size_t k = 0; k < a.size(); ++k) result[k] += step * direction[k];
  return result;
}

double relative_error(const Values& got, const Values& expected) {
  const Values difference = moved(got, -1, expected);
  return std::sqrt(dot(difference, difference) / dot(expected, expected));
}

// Written so that NaN fails.
void expect_below(double error, double limit, const std::string& what) {
  if (error <= limit) return;
  std::printf("FAILED %s: error %.3g, expected at most %.3g\n", what.c_str(), error, limit);
  ++failures;
}

void check_shape(const LayerShape& shape, const std::string& name) {
  const Layout layout(shape);
  std::mt19937 generator(7);
  std::normal_distribution<double> normal(0, 0.5);
  auto draw = [&](const std::vector<int64_t>& sizes) {
    Values values(Layout::total(sizes));
    // Rounded, so that the passes start from the same point whatever they compute in.
    for (double& value : values)
      value = ganlstm::widen(ganlstm::narrow<BFloat16>(float(normal(generator))));
    return values;
  };
  const Values point = draw(layout.inputs), cotangent = draw(layout.outputs);
  const Values v = draw(layout.inputs), w = draw(layout.inputs), u = draw(layout.outputs);
  const Results exact = run<double>(shape, point, cotangent, v);
  const Results single = run<float>(shape, point, cotangent, v);

  expect_below(relative_error(exact.outputs, naive_forward(shape, point)), 1e-13,
               name + ": forward in double");
  expect_below(relative_error(single.outputs, exact.outputs), 2e-6, name + ": forward in float");
  expect_below(relative_error(single.gradient, exact.gradient), 5e-6, name + ": backward in float");
  expect_below(relative_error(single.second, exact.second), 1e-5,
               name + ": double backward in float");
  expect_below(relative_error(single.second_cotangent, exact.second_cotangent), 1e-5,
               name + ": cotangent's gradient in float");
  const Results brief = run<BFloat16>(shape, point, cotangent, v);
  const double rounding = 1.0 / 256;  // of one result to bfloat16, at most
  expect_below(relative_error(brief.outputs, exact.outputs), rounding,
               name + ": forward in bfloat16");
  expect_below(relative_error(brief.gradient, exact.gradient), 1.5 * rounding,
               name + ": backward in bfloat16");
  expect_below(relative_error(brief.second, exact.second), 1.5 * rounding,
               name + ": double backward in bfloat16");
  expect_below(relative_error(brief.second_cotangent, exact.second_cotangent), 1.5 * rounding,
               name + ": cotangent's gradient in bfloat16");
  // A few rows and steps, without a window, are summed in another order.
  const int64_t most = shape.steps * shape.batch <= 16 ? 0 : shape.steps + 1;
  for (int64_t window = 1; window <= most; ++window) {
    const std::string what = name + ": window of " + std::to_string(window);
    const Results again = run<double>(shape, point, cotangent, v, window);
    const Results again_single = run<float>(shape, point, cotangent, v, window);
    expect_below(relative_error(again.outputs, exact.outputs), 0, what + ", forward");
    expect_below(relative_error(again.gradient, exact.gradient), 0, what + ", backward");
    expect_below(relative_error(again_single.gradient, single.gradient), 0, what + " in float");
    const Results again_brief = run<BFloat16>(shape, point, cotangent, v, window);
    // Float copies lack the rounding of h between steps when they compute gates again.
    const bool native = std::strcmp(ganlstm::cpu_isa(), "avx512bf16") == 0;
    expect_below(relative_error(again_brief.gradient, brief.gradient), native ? 0 : rounding,
                 what + " in bfloat16");
  }

  const double step = 1e-5;
  // The derivative of `f` in one direction against what a pass says it is.
  auto expect_derivative = [&](double got, auto f, const std::string& what) {
    const double expected = (f(step) - f(-step)) / (2 * step);
    expect_below(std::abs(got - expected) / (1 + std::abs(expected)), 1e-7, name + ": " + what);
  };
  expect_derivative(
      dot(exact.gradient, w),
      [&](double e) { return dot(cotangent, naive_forward(shape, moved(point, e, w))); },
      "backward");
  expect_derivative(
      dot(exact.second, w),
      [&](double e) {
        return dot(v, run<double>(shape, moved(point, e, w), cotangent, v).gradient);
      },
      "double backward");
  expect_derivative(
      dot(exact.second_cotangent, u),
      [&](double e) {
        return dot(v, run<double>(shape, point, moved(cotangent, e, u), v).gradient);
      },
      "double backward, cotangent");
}

float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

void check_bfloat16() {
  struct Rounding {
    uint32_t from;
    uint16_t to;
    const char* what;
  };
  for (const Rounding& r : {
           Rounding{0x3f800000, 0x3f80, "one"},
           {0x3f807fff, 0x3f80, "below half"},
           {0x3f808000, 0x3f80, "a tie, to even below"},
           {0x3f818000, 0x3f82, "a tie, to even above"},
           {0x3f808001, 0x3f81, "above half"},
           {0xbf818000, 0xbf82, "a negative tie"},
           {0x3fffffff, 0x4000, "to the next power of two"},
           {0x80000000, 0x8000, "negative zero"},
           {0x00000001, 0x0000, "the least denormal"},
           {0x00018000, 0x0002, "a denormal tie"},
           {0x007fffff, 0x0080, "a denormal to a normal"},
           {0x7f7f7fff, 0x7f7f, "the largest"},
           {0x7f7fffff, 0x7f80, "overflow"},
           {0x7f800000, 0x7f80, "infinity"},
           {0xff800000, 0xff80, "negative infinity"},
           {0x7fc00000, 0x7fc0, "NaN"},
           {0x7f800001, 0x7fc0, "NaN with its bits in the lower half"},
           {0xffffffff, 0xffff, "NaN of all bits"},
       }) {
    const uint16_t got = ganlstm::narrow<BFloat16>(float_of(r.from)).bits;
    if (got == r.to) continue;
    std::printf("FAILED bfloat16 of %s: %04x, expected %04x\n", r.what, got, r.to);
    ++failures;
  }
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = ganlstm::widen(BFloat16{uint16_t(bits)});
    const bool nan = (bits & 0x7fff) > 0x7f80;
    const uint16_t back = ganlstm::narrow<BFloat16>(value).bits;
    if (std::isnan(value) == nan && (back == bits || (nan && back == (bits | 0x40)))) continue;
    std::printf("FAILED bfloat16 %04x: comes back as %04x\n", bits, back);
    ++failures;
  }
}

// Without products what is left is the same in float, so the outputs are its roundings to the bit.
void check_bfloat16_outputs() {
  const LayerShape shape{1, 16, 3, 45, 1, nullptr, nullptr};
  const Layout layout(shape);
  Values point(Layout::total(layout.inputs), 0.0);
  std::mt19937 generator(7);
  std::normal_distribution<double> normal(0, 2);
  const int64_t c0 = layout.inputs[0] + layout.inputs[1];
  const int64_t bias = Layout::total(layout.inputs) - 2 * 4 * shape.hidden;
  for (int64_t k = c0; k < int64_t(point.size()); ++k)
    if (k < c0 + layout.inputs[2] || k >= bias)
      point[k] = ganlstm::widen(ganlstm::narrow<BFloat16>(float(normal(generator))));
  point[c0] = std::numeric_limits<double>::quiet_NaN();
  point[c0 + 1] = std::numeric_limits<double>::infinity();
  point[c0 + 2] = -std::numeric_limits<double>::infinity();
  const Values zeros(Layout::total(layout.outputs), 0.0);
  const Values single = run<float>(shape, point, zeros, point).outputs;
  const Values got = run<BFloat16>(shape, point, zeros, point).outputs;
  for (size_t k = 0; k < got.size(); ++k) {
    const double expected = ganlstm::widen(ganlstm::narrow<BFloat16>(float(single[k])));
    if (got[k] == expected || (std::isnan(got[k]) && std::isnan(expected))) continue;
    std::printf("FAILED output %d in bfloat16: %.9g, expected %.9g\n", int(k), got[k], expected);
    ++failures;
  }
}

}  // namespace

int main(int argc, char** argv) {
  // GANLSTM_FAST_CPU_ISA has chosen the instruction set; the argument says which one it meant.
  if (argc > 1 && std::strcmp(argv[1], ganlstm::cpu_isa()) != 0) {
    std::printf("skipped: runs %s, not %s\n", ganlstm::cpu_isa(), argv[1]);
    return 77;
  }
  const std::vector<int64_t> lengths = {3, 6, 1, 6, 2, 4, 5};
  std::vector<int64_t> order(lengths.size());
  ganlstm::order_by_length(lengths.data(), lengths.size(), order.data());
  check_shape({6, 7, 3, 10, 2, nullptr, nullptr}, "two directions");
  check_shape({6, 7, 3, 10, 2, lengths.data(), order.data()}, "lengths");
  check_shape({3, 7, 5, 33, 1, nullptr, nullptr}, "ragged hidden size");
  check_shape({3, 2, 5, 33, 1, nullptr, nullptr}, "few rows and steps");
  check_shape({1, 1, 1, 1, 1, nullptr, nullptr}, "all sizes 1");
  check_bfloat16();
  check_bfloat16_outputs();
  if (failures == 0) std::printf("passed on %s\n", ganlstm::cpu_isa());
  return failures == 0 ? 0 : 1;
}
