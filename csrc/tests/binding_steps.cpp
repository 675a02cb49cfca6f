// The GPU's recurrent steps on CPU tensors, for tests: the code for an element in a plain loop and
// products by PyTorch, or the kernels of one launch, emulated. tests/ops/lstm/test_steps.py
// compiles and loads it.
//
// GANLSTM_TEST_PLAN: "grid blocks columns multiprocessors", in place of what the plan has.
#include <array>
#include <cstdio>
#include <cstdlib>

#include "emulator.h"
// After it.
#include "../common/dispatch.h"
#include "../rnn/gpu/lstm_binding.h"
#include "../rnn/gpu/persistent_steps.h"

namespace ganlstm::gpu {
namespace {

using torch::stable::detail::from;
using torch::stable::detail::to;

Tensor widened(const Tensor& t) {
  std::array<StableIValue, 5> stack{from(t), from(ScalarType::Float), from(false), from(false),
                                    from(std::nullopt)};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("aten::to", "dtype", stack.data(), TORCH_ABI_VERSION));
  return to<Tensor>(stack[0]);
}

constexpr persistent::Limits kH100{9, 227 << 10, 132};

std::string why_not_cuda(int64_t capability, int64_t hidden, int64_t element) {
  persistent::Limits limits = kH100;
  limits.capability = int(capability);
  return persistent::why_not(hidden, int(element), limits);
}

struct PlainSteps {
  static constexpr auto kDevice = kCPU;

  explicit PlainSteps(const Tensor&) {}

  template <typename Body>
  static void dispatch(ScalarType dtype, const char* name, Body&& body) {
    ganlstm::dispatch<float, double, BFloat16>(dtype, name, body);
  }

  void multiply(const Tensor& out, const Tensor& a, const Tensor& b) const {
    const bool same = a.scalar_type() == out.scalar_type();
    std::array<StableIValue, 3> stack{from(same ? a : widened(a)), from(same ? b : widened(b)),
                                      from(out)};
    STABLE_TORCH_ERROR_CODE_CHECK(
        torch_call_dispatcher("aten::bmm", "out", stack.data(), TORCH_ABI_VERSION));
    to<Tensor>(stack[0]);
  }

  template <typename Args>
  void cell_step(const CellStep<Args>& step) const {
    for (int64_t k = 0; k < step.elements(); ++k) step(k);
  }

  template <typename Args>
  void persistent(const Args& args, const Tensor& weight_hh, bool tf32) const {
    if constexpr (std::is_same_v<typename Args::T, double>) {
      check(false, "impl: cuda takes no torch.float64");
    } else {
      using persistent::Precision;
      const persistent::Plan plan = planned(args);
      check(plan.fits, "the plan does not fit");
      const auto* weights = static_cast<const typename Args::T*>(weight_hh.const_data_ptr());
      Tensor room = room_of(plan, weight_hh);
      char* bytes = static_cast<char*>(room.mutable_data_ptr());
      if constexpr (!std::is_same_v<typename Args::T, float>)
        run<Args, Precision::native>(args, plan, weights, bytes);
      else if (tf32)
        run<Args, Precision::tf32>(args, plan, weights, bytes);
      else
        run<Args, Precision::split>(args, plan, weights, bytes);
    }
  }

 private:
  template <typename Args>
  static persistent::Plan planned(const Args& args) {
    const Steps& s = args.shape;
    constexpr int kElement = int(sizeof(typename Args::T)), kTimes = Pass<Args>::kExchanged;
    const char* named = std::getenv("GANLSTM_TEST_PLAN");
    if (named == nullptr)
      return persistent::plan(s.batch, s.hidden, s.directions, kElement, kTimes, kH100);
    int grid = 0, blocks = 0, columns = 0;
    persistent::Limits limits = kH100;
    check(std::sscanf(named, "%d %d %d %d", &grid, &blocks, &columns, &limits.multiprocessors) == 4,
          "GANLSTM_TEST_PLAN: expected four numbers, got ", named);
    return persistent::sized(s.batch, s.hidden, s.directions, kElement, kTimes, grid != 0, blocks,
                             columns, limits);
  }

  template <typename Args, persistent::Precision kPrecision>
  static void run(const Args& args, const persistent::Plan& plan, const typename Args::T* weights,
                  char* room) {
    switch (plan.columns) {
      case 1: return run<Args, kPrecision, 1>(args, plan, weights, room);
      case 2: return run<Args, kPrecision, 2>(args, plan, weights, room);
      default: return run<Args, kPrecision, 4>(args, plan, weights, room);
    }
  }

  template <typename Args, persistent::Precision kPrecision, int kColumns>
  static void run(const Args& args, const persistent::Plan& plan, const typename Args::T* weights,
                  char* room) {
    auto* arrivals = reinterpret_cast<unsigned int*>(room + plan.teams * plan.room);
    const auto body = [&](auto grid) {
      persistent::Block<Args, kPrecision, kColumns, decltype(grid)::value>(args, plan, room,
                                                                           arrivals)
          .run(weights);
    };
    hardware::launch(plan.teams * plan.blocks, plan.blocks, plan.threads, plan.shared, [&] {
      if (plan.grid)
        body(std::true_type());
      else
        body(std::false_type());
    });
  }
};

}  // namespace
}  // namespace ganlstm::gpu

STABLE_TORCH_LIBRARY_IMPL(ganlstm_fast, CPU, m) {
  GANLSTM_REGISTER_LSTM_STEPS(m, ganlstm::gpu::PlainSteps);
}

// In a namespace of its own: beside a GPU the operator has its own answer. `device` is the
// capability.
STABLE_TORCH_LIBRARY_IMPL(ganlstm_fast_emulated, CompositeExplicitAutograd, m) {
  m.impl("lstm_why_not_cuda", TORCH_BOX(&ganlstm::gpu::why_not_cuda));
}
