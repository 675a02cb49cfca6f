// The GPU's recurrent steps on CPU tensors, for tests: the code for an element in a plain loop and
// products by PyTorch, or the kernels of one launch, emulated. tests/test_steps.py compiles and
// loads it.
//
// GANLSTM_TEST_CLUSTER: "blocks columns", in place of what the plan has.
#include <array>
#include <cstdlib>

#include "emulator.h"
// After it.
#include "../common/dispatch.h"
#include "../lstm/cluster_steps.h"
#include "../lstm/steps_binding.h"

namespace ganlstm::cuda {
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

// Of an H100.
constexpr size_t kShared = 227 << 10;
constexpr int kMultiprocessors = 132;

std::string why_no_cluster(int64_t, int64_t hidden, int64_t element) {
  const ClusterPlan plan =
      cluster::plan(1, hidden, 1, int(element), 4, cluster::kMostBlocks, kShared, kMultiprocessors);
  return cluster::why_not(plan, hidden);
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
      ClusterPlan plan = planned(args);
      const auto* weights = static_cast<const typename Args::T*>(weight_hh.const_data_ptr());
      if constexpr (!std::is_same_v<typename Args::T, float>)
        run<Args, Precision::native>(args, plan, weights);
      else if (tf32)
        run<Args, Precision::tf32>(args, plan, weights);
      else
        run<Args, Precision::split>(args, plan, weights);
    }
  }

 private:
  template <typename Args>
  static ClusterPlan planned(const Args& args) {
    const Steps& s = args.shape;
    constexpr int kElement = int(sizeof(typename Args::T)), kTimes = Pass<Args>::kExchanged;
    const char* named = std::getenv("GANLSTM_TEST_CLUSTER");
    if (named == nullptr)
      return cluster::plan(s.batch, s.hidden, s.directions, kElement, kTimes, cluster::kMostBlocks,
                           kShared, kMultiprocessors);
    char* end;
    const int blocks = int(std::strtol(named, &end, 10)), columns = int(std::strtol(end, &end, 10));
    return cluster::sized(s.batch, s.hidden, kElement, kTimes, blocks, columns);
  }

  template <typename Args, Precision kPrecision>
  static void run(const Args& args, const ClusterPlan& plan, const typename Args::T* weights) {
    switch (plan.columns) {
      case 1: return run<Args, kPrecision, 1>(args, plan, weights);
      case 2: return run<Args, kPrecision, 2>(args, plan, weights);
      default: return run<Args, kPrecision, 4>(args, plan, weights);
    }
  }

  template <typename Args, Precision kPrecision, int kColumns>
  static void run(const Args& args, const ClusterPlan& plan, const typename Args::T* weights) {
    device::launch(int(plan.tiles) * plan.blocks, int(args.shape.directions), plan.blocks,
                   plan.threads, plan.shared,
                   [&] { cluster::Block<Args, kPrecision, kColumns>(args, plan).run(weights); });
  }
};

}  // namespace
}  // namespace ganlstm::cuda

STABLE_TORCH_LIBRARY_IMPL(ganlstm_fast, CPU, m) {
  GANLSTM_REGISTER_STEPS(m, ganlstm::cuda::PlainSteps);
}

STABLE_TORCH_LIBRARY_IMPL(ganlstm_fast, CompositeExplicitAutograd, m) {
  m.impl("lstm_why_no_cluster", TORCH_BOX(&ganlstm::cuda::why_no_cluster));
}
