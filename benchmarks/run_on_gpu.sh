#!/usr/bin/env bash
# Build, test, check and measure on a machine with a GPU, in one command and under ten minutes:
#
#   benchmarks/run_on_gpu.sh            all stages
#   benchmarks/run_on_gpu.sh bench      some of: build explain test sanitize bench
#
# Needs Python with torch and pytest, nvcc and a C++ compiler, and no network. A stage that fails or
# runs into its time limit does not stop the next; the exit status says whether one did. What cannot
# be built is left out of the measurements, which then are of the rivals alone.
#
# PYTHON         the interpreter that has torch (python3)
# TOTAL_SECONDS  what all stages may take together (570); the benchmarks get what the others leave
# TEST_SECONDS   what the tests may take (200); the sanitizer runs meanwhile
# BENCH_OPTIONS  of bench_lstm_gpu.py (--save-results)
# OUT            a folder that gets the log and the result files as well
set -uo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
python=${PYTHON:-python3}
total=${TOTAL_SECONDS:-570}
test_seconds=${TEST_SECONDS:-200}
read -ra bench_options <<<"${BENCH_OPTIONS:---save-results}"
stages=${*:-build explain test sanitize bench}
logs=$(mktemp -d)
status=() failed=0 here=0 sanitizing_since=0
declare -A jobs=()
# The checkout, whether it is installed or not: an editable install has its objects there.
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1

left() { echo $((total - SECONDS)); }

# Appends a line to the table at the end: name, exit status, seconds since $3.
note() {
  local what=ok
  case $2 in
    0) ;;
    124 | 137) what="out of time" ;;
    *) what="failed ($2)" ;;
  esac
  status+=("$(printf '%-28s %-12s %4d s' "$1" "$what" $((SECONDS - $3)))")
  [[ $2 == 0 ]] || failed=1
}

# stage NAME LIMIT COMMAND...: into its log; what a failure said last is shown.
stage() {
  local name=$1 limit=$2 begun=$SECONDS
  shift 2
  ((limit > $(left))) && limit=$(left)
  ((limit < 1)) && limit=1
  echo "--- $name (at most $limit s)"
  timeout -k 10 "$limit" "$@" >"$logs/$name.log" 2>&1
  here=$?
  note "$name" $here $begun
  [[ $here == 0 ]] || tail -n 8 "$logs/$name.log" | cut -c -200
  return $here
}

wants() { [[ " $stages " == *" $1 "* ]]; }
has() { "$python" -c "import $1" 2>/dev/null; }

architecture() {
  "$python" -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())' 2>/dev/null
}

# In processes that run at the same time, most of which is compiling: a kernel that hangs takes only
# its own with it. Together they run every test; Triton's compile the most.
run_tests() {
  local others="cell or cuda or triton" options=(-v -rfEs --tb=short -p no:cacheprovider)
  local shards=("cell and not triton" "cuda and not (cell or triton)" "not ($others)")
  shards+=("triton and bfloat16" "triton and (float16 and not bfloat16)" "triton and tf32")
  shards+=("triton and float32" "triton and not (float16 or bfloat16 or tf32 or float32)")
  has pytest_timeout && options+=(--timeout=100 --timeout-method=thread)
  local begun=$SECONDS number name running=()
  echo "--- test (at most $test_seconds s)"
  for number in "${!shards[@]}"; do
    timeout -k 10 "$test_seconds" "$python" -m pytest tests/test_gpu.py tests/test_triton.py \
      tests/test_spectral_norm_gpu.py tests/test_spectral_norm_triton.py \
      tests/test_gradient_penalty_gpu.py tests/test_gradient_penalty_triton.py \
      tests/test_gradient_penalty_on_gpu.py \
      tests/test_benchmark_harness.py::test_contenders_do_the_same_work_on_a_gpu \
      "${options[@]}" -k "${shards[number]}" >"$logs/test-$number.log" 2>&1 &
    running[number]=$!
  done
  for number in "${!shards[@]}"; do
    name=test-$number
    wait "${running[number]}"
    here=$?
    ((here == 5)) && here=0 # no test of that name
    note "$name" $here "$begun"
    status[-1]+=" ${shards[number]}: $(tail -n 1 "$logs/$name.log" | cut -c -80)"
    # Without a summary where the time was out.
    { grep -aE '^(FAILED|ERROR) ' "$logs/$name.log" ||
      grep -aoE '(FAILED|ERROR) +tests/.*' "$logs/$name.log"; } | cut -c -200 | head -n 8
  done
}

# Each implementation in a process of its own, all at once. Without torch's allocator, which hides
# an access beyond a tensor that stays within its block; of our kernels only, for the time.
begin_sanitizing() {
  local sanitizer impl tool
  sanitizer=$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)
  if [[ ! -x $sanitizer ]]; then
    status+=("sanitize: no compute-sanitizer here")
    return
  fi
  sanitizing_since=$SECONDS
  for impl in cell cuda triton; do
    for tool in memcheck racecheck; do
      PYTORCH_NO_CUDA_MEMORY_CACHING=1 timeout -k 10 "$test_seconds" \
        "$sanitizer" --tool "$tool" --kernel-name kns=lstm --error-exitcode 9 \
        "$python" benchmarks/bench_lstm_gpu.py --tiny "$impl" >"$logs/$impl-$tool.log" 2>&1 &
      jobs[$impl-$tool]=$!
    done
  done
}

end_sanitizing() {
  local name
  for name in $(printf '%s\n' "${!jobs[@]}" | sort); do
    wait "${jobs[$name]}"
    here=$?
    note "$name" $here "$sanitizing_since"
    status[-1]+=" $(grep -aE '(ERROR|RACECHECK) SUMMARY|cannot run' "$logs/$name.log" | tail -n 1 |
      cut -c -80)"
    [[ $here == 0 ]] || { echo "--- $name" && tail -n 8 "$logs/$name.log" | cut -c -200; }
  done
}

# What is left in case of a broken device or a kernel that hangs: a process without our kernels.
bench() {
  local limit=$(($(left) - 10))
  stage bench "$limit" "$python" benchmarks/bench_lstm_gpu.py "${bench_options[@]}" \
    --limit $((limit - 150))
  if ! grep -q '^speed over' "$logs/bench.log" && (($(left) > 75)); then
    stage bench-rivals $(($(left) - 10)) "$python" benchmarks/bench_lstm_gpu.py --quick \
      --impls torch --save-results rivals --limit $(($(left) - 45))
  fi
  if (($(left) > 60)) && has pytest_benchmark; then
    stage bench-others $(($(left) - 20)) "$python" -m pytest benchmarks/bench_spectral_norm.py \
      benchmarks/bench_gradient_penalty.py --benchmark-only -q -k GPU --save-results others \
      --seconds 0.4 && sed -n '/=== benchmarks/,$p' "$logs/bench-others.log" | cut -c -200
  fi
  for name in bench bench-rivals; do
    [[ ! -f $logs/$name.log ]] || sed -n '/^speed over/,$p' "$logs/$name.log" | cut -c -300
  done
}

# The log beside the results that came of it, and both into $OUT.
keep() {
  local file folder
  [[ -z ${OUT:-} ]] || mkdir -p "$OUT"
  tail -n +1 "$logs"/*.log | sed -e "s|$root|.|g" -e "s|$logs|logs|g" >"$logs/all"
  while read -r file; do
    folder=$(dirname "$file")
    cp "$logs/all" "$folder/run_on_gpu.log"
    [[ -z ${OUT:-} ]] || { mkdir -p "$OUT/${folder##*/}" && cp "$file" "$OUT/${folder##*/}/"; }
  done < <(find benchmarks/results -name '*.json' -newer "$logs/began")
  [[ -z ${OUT:-} ]] || cp "$logs/all" "$OUT/run_on_gpu.log"
}

touch "$logs/began"
if wants build; then
  architecture=${GANLSTM_FAST_CUDA_ARCHS:-$(architecture)}
  # Only the GPU that is here, for the time.
  if [[ -n $architecture ]]; then export GANLSTM_FAST_CUDA_ARCHS=$architecture; fi
  install=("$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps)
  stage build 200 "${install[@]}" --no-build-isolation -e . ||
    stage build-inplace 150 "$python" setup.py build_ext --inplace
fi
if wants explain; then
  stage explain 60 "$python" -c "
import ganlstm_fast, torch
print('torch', torch.__version__, 'on', torch.cuda.get_device_name())
for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
    print(dtype, ganlstm_fast.explain('cuda', dtype).splitlines()[0])" &&
    cut -c -400 "$logs/explain.log"
fi
# Neither is timed, so that they may share the machine.
if wants sanitize; then begin_sanitizing; fi
if wants test; then run_tests; fi
if wants sanitize; then end_sanitizing; fi
if wants bench; then bench; fi
keep

echo
printf '%s\n' "${status[@]}"
exit $failed
