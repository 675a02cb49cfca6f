// The instruction set and the pool of memory as ops.
#include <torch/csrc/stable/library.h>

#include <string>

#include "isa.h"
#include "pool.h"

namespace ganlstm {
namespace {

std::string cpu_isa_name() { return cpu_isa(); }

void pool_empty_cache() { pool_empty(); }

}  // namespace
}  // namespace ganlstm

// These ops take no tensor from which the dispatcher could find a backend.
STABLE_TORCH_LIBRARY_IMPL(ganlstm_fast, CompositeExplicitAutograd, m) {
  m.impl("cpu_isa", TORCH_BOX(&ganlstm::cpu_isa_name));
  m.impl("empty_cache", TORCH_BOX(&ganlstm::pool_empty_cache));
}
