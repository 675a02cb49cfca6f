#include "lstm_widened.h"

#include <algorithm>
#include <deque>
#include <vector>

#include "../../common/cpu/scratch.h"

namespace ganlstm::widened {
namespace {

// Owns float copies of a call's arrays. A null pointer stays null.
class Copies {
 public:
  Copies(const LayerShape& shape, const Parallel& parallel)
      : state(shape.directions * shape.batch * shape.hidden),
        output(shape.steps * state),
        input(shape.steps * shape.batch * shape.input),
        shape_(shape),
        parallel_(parallel) {}

  const float* in(const BFloat16* from, int64_t count) {
    if (from == nullptr) return nullptr;
    float* to = memory_.emplace_back(count).get();
    for_each_block(count, [=](int64_t i, int64_t n) { convert(to + i, from + i, n); });
    return to;
  }

  // narrow_results() copies what was written to the result of this to `to`.
  float* out(BFloat16* to, int64_t count) {
    if (to == nullptr) return nullptr;
    results_.push_back({memory_.emplace_back(count).get(), to, count});
    return results_.back().from;
  }

  void in(const LayerWeights<BFloat16> (&from)[2], LayerWeights<float> (&to)[2]) {
    const int64_t gates = 4 * shape_.hidden;
    for (int64_t d = 0; d < shape_.directions; ++d)
      to[d] = {in(from[d].ih, gates * shape_.input), in(from[d].hh, gates * shape_.hidden),
               in(from[d].b_ih, gates), in(from[d].b_hh, gates)};
  }

  void out(const LayerWeightGrads<BFloat16> (&to)[2], LayerWeightGrads<float> (&from)[2]) {
    const int64_t gates = 4 * shape_.hidden;
    for (int64_t d = 0; d < shape_.directions; ++d)
      from[d] = {out(to[d].ih, gates * shape_.input), out(to[d].hh, gates * shape_.hidden),
                 out(to[d].b_ih, gates), out(to[d].b_hh, gates)};
  }

  void narrow_results() {
    for (const Result& r : results_) {
      const float* from = r.from;
      BFloat16* to = r.to;
      for_each_block(r.count, [=](int64_t i, int64_t n) { convert(to + i, from + i, n); });
    }
  }

  const int64_t state, output, input;  // elements of [D,B,H], [T,B,D*H], [T,B,I]

 private:
  struct Result {
    float* from;
    BFloat16* to;
    int64_t count;
  };

  template <typename F>
  void for_each_block(int64_t count, F f) {
    constexpr int64_t block = 1 << 15;
    for_each_task(parallel_, (count + block - 1) / block,
                  [&](int64_t index) { f(index * block, std::min(block, count - index * block)); });
  }

  const LayerShape& shape_;
  const Parallel& parallel_;
  std::deque<Scratch<float>> memory_;
  std::vector<Result> results_;
};

}  // namespace

void lstm_forward(const LstmForward<BFloat16>& a, const Parallel& parallel) {
  Copies copies(a.shape, parallel);
  LstmForward<float> args{};
  args.shape = a.shape;
  copies.in(a.weights, args.weights);
  args.x = copies.in(a.x, copies.input);
  args.h0 = copies.in(a.h0, copies.state);
  args.c0 = copies.in(a.c0, copies.state);
  args.y = copies.out(a.y, copies.output);
  args.h_last = copies.out(a.h_last, copies.state);
  args.c_last = copies.out(a.c_last, copies.state);
  args.window = a.window;
  args.gates = a.gates;
  args.c = a.c;
  ganlstm::lstm_forward(args, parallel);
  copies.narrow_results();
}

void lstm_backward(const LstmBackward<BFloat16>& a, const Parallel& parallel) {
  Copies copies(a.shape, parallel);
  LstmBackward<float> args{};
  args.shape = a.shape;
  copies.in(a.weights, args.weights);
  args.grad_y = copies.in(a.grad_y, copies.output);
  args.grad_h_last = copies.in(a.grad_h_last, copies.state);
  args.grad_c_last = copies.in(a.grad_c_last, copies.state);
  args.x = copies.in(a.x, copies.input);
  args.h0 = copies.in(a.h0, copies.state);
  args.c0 = copies.in(a.c0, copies.state);
  args.y = copies.in(a.y, copies.output);
  args.window = a.window;
  args.gates = a.gates;
  args.c = a.c;
  args.grad_x = copies.out(a.grad_x, copies.input);
  args.grad_h0 = copies.out(a.grad_h0, copies.state);
  args.grad_c0 = copies.out(a.grad_c0, copies.state);
  copies.out(a.grad_weights, args.grad_weights);
  args.dz = copies.out(a.dz, 4 * copies.output);
  args.d = a.d;
  ganlstm::lstm_backward(args, parallel);
  copies.narrow_results();
}

void lstm_double_backward(const LstmDoubleBackward<BFloat16>& a, const Parallel& parallel) {
  Copies copies(a.shape, parallel);
  LstmDoubleBackward<float> args{};
  args.shape = a.shape;
  copies.in(a.weights, args.weights);
  copies.in(a.v_weights, args.v_weights);
  args.v_x = copies.in(a.v_x, copies.input);
  args.v_h0 = copies.in(a.v_h0, copies.state);
  args.v_c0 = copies.in(a.v_c0, copies.state);
  args.grad_c_last = copies.in(a.grad_c_last, copies.state);
  args.x = copies.in(a.x, copies.input);
  args.h0 = copies.in(a.h0, copies.state);
  args.c0 = copies.in(a.c0, copies.state);
  args.y = copies.in(a.y, copies.output);
  args.gates = a.gates;
  args.c = a.c;
  args.dz = copies.in(a.dz, 4 * copies.output);
  args.d = a.d;
  args.g_grad_y = copies.out(a.g_grad_y, copies.output);
  args.g_grad_h_last = copies.out(a.g_grad_h_last, copies.state);
  args.g_grad_c_last = copies.out(a.g_grad_c_last, copies.state);
  args.g_x = copies.out(a.g_x, copies.input);
  args.g_h0 = copies.out(a.g_h0, copies.state);
  args.g_c0 = copies.out(a.g_c0, copies.state);
  copies.out(a.g_weights, args.g_weights);
  ganlstm::lstm_double_backward(args, parallel);
  copies.narrow_results();
}

}  // namespace ganlstm::widened
