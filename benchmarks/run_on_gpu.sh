#!/usr/bin/env bash
# Build, test, check and measure on a machine with a GPU, in one command that stops after eight minutes:
#
#   benchmarks/run_on_gpu.sh            all stages
#   benchmarks/run_on_gpu.sh bench      some of: build explain test sanitize train bench
#
# Right comes before fast: the tests, then the sanitizer, then the seconds to a training's first step
# and the measurements, from which benchmarks/choices.py writes the table of what `auto` takes. Needs
# Python with torch and pytest, nvcc and a C++ compiler where the kernels are not built yet, and no
# network. A stage that fails or runs into
# its time limit does not stop the next; the exit status says whether one did. What cannot be built is
# left out of the measurements, which then are of the rivals alone.
#
# PYTHON         the interpreter that has torch (python3)
# TOTAL_SECONDS  what all stages may take together (470); the benchmarks get what the others leave
# TEST_SECONDS   what the tests may take (150)
# CHECK_SECONDS  what the sanitizer may take (75)
# BENCH_OPTIONS  of bench_lstm_gpu.py (--save-results)
# COMMIT         what the results say they are of, where git does not know
# OUT            a folder that gets the logs, as they grow, and the result files
set -uo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
python=${PYTHON:-python3}
total=${TOTAL_SECONDS:-470}
test_seconds=${TEST_SECONDS:-150}
check_seconds=${CHECK_SECONDS:-75}
read -ra bench_options <<<"${BENCH_OPTIONS:---save-results}"
stages=${*:-build explain test sanitize train bench}
# In $OUT from the start: what kills this script leaves the logs.
logs=${OUT:+$OUT/logs}
logs=${logs:-$(mktemp -d)}
mkdir -p "$logs"
status=() failed=0 here=0
# The checkout, whether it is installed or not: an editable install has its objects there.
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
export TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-$(mktemp -d)}

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
  # As Ctrl-C: pytest then saves what was measured.
  timeout -s INT -k 10 "$limit" "$@" >"$logs/$name.log" 2>&1
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

is_built() {
  "$python" -c 'from ganlstm_fast.ops import backends as b
raise SystemExit(not (b.is_loaded("cpu") and b.is_loaded("cuda")))' 2>/dev/null
}

# Many processes on one GPU take turns, so that three use it. What Triton has to compile, the other
# cores do meanwhile, without the GPU: its tests come last. A line for each test as it ends, and a
# failure's message when it comes.
run_tests() {
  local begun=$SECONDS warming cores options
  echo "--- test (at most $test_seconds s)"
  cores=$(($(nproc) > 5 ? $(nproc) - 3 : 2))
  timeout -k 5 "$test_seconds" "$python" -m tests.ops.warm_triton "$cores" >"$logs/warm.log" 2>&1 &
  warming=$!
  options=(-v -rfE --tb=short -p no:cacheprovider -m gpu)
  has xdist && options+=(-n 3 --dist loadgroup)
  "$python" -m pytest --help 2>/dev/null | grep -q no-loadscope-reorder &&
    options+=(--no-loadscope-reorder)
  has pytest_timeout && options+=(--timeout=60 --timeout-method=thread)
  GANLSTM_TEST_FAILURES="$logs/failures.txt" timeout -k 5 $((begun + test_seconds - SECONDS)) \
    "$python" -m pytest tests "${options[@]}" >"$logs/test.log" 2>&1
  here=$?
  note test $here "$begun"
  status[-1]+=" $(tail -n 1 "$logs/test.log" | cut -c -100)"
  wait $warming
  note warm $? "$begun"
  grep -aE '(FAILED|ERROR) +tests/' "$logs/test.log" | grep -ao 'tests/.*' | sort -u |
    cut -c -200 | head -n 12
  [[ ! -s $logs/failures.txt ]] || { echo "--- failures" && head -c 6000 "$logs/failures.txt"; }
}

# Each implementation in a process of its own, all at once: neither is timed. Without torch's
# allocator, which hides an access beyond a tensor that stays within its block; of our kernels only,
# for the time. Races in 32 and 64 bits: under racecheck a product of cuBLAS in 16 bits, alone in a
# process, ends with an error of the sanitizer itself (CUDA 13.0, H100).
sanitize() {
  local sanitizer impl tool name dtypes begun=$SECONDS
  local -A jobs=()
  sanitizer=$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)
  if [[ ! -x $sanitizer ]]; then
    status+=("sanitize: no compute-sanitizer here")
    return
  fi
  echo "--- sanitize (at most $check_seconds s)"
  for impl in cell cuda triton; do
    for tool in memcheck racecheck; do
      dtypes=float32,float64
      [[ $tool == racecheck ]] || dtypes+=,float16,bfloat16
      PYTORCH_NO_CUDA_MEMORY_CACHING=1 timeout -k 5 "$check_seconds" \
        "$sanitizer" --tool "$tool" --kernel-name kns=lstm --error-exitcode 9 \
        "$python" -m benchmarks.bench_lstm_gpu --tiny "$impl" --dtypes "$dtypes" \
        >"$logs/$impl-$tool.log" 2>&1 &
      jobs[$impl-$tool]=$!
    done
  done
  for name in $(printf '%s\n' "${!jobs[@]}" | sort); do
    wait "${jobs[$name]}"
    here=$?
    note "$name" $here "$begun"
    status[-1]+=" $(grep -aE '(ERROR|RACECHECK) SUMMARY|cannot run' "$logs/$name.log" | tail -n 1 |
      cut -c -80)"
    [[ $here == 0 ]] || { echo "--- $name" && tail -n 8 "$logs/$name.log" | cut -c -200; }
  done
}

# With the kernels that auto takes, and by torch's own LSTM, whose penalty is plain PyTorch.
train() {
  stage train 90 "$python" -m benchmarks.first_step cuda lstm-gan dcgan --steps 300
  GANLSTM_FAST_IMPL=lstm=torch,gradient_penalty=reference stage train-torch 45 \
    "$python" -m benchmarks.first_step cuda lstm-gan --steps 40 --runs 1
  cat "$logs"/train*.log
}

# What is left in case of a broken device or a kernel that hangs: a process without our kernels.
bench() {
  local limit=$(($(left) - 10))
  stage bench "$limit" "$python" -m benchmarks.bench_lstm_gpu "${bench_options[@]}" \
    --seconds 0.8 --limit $((limit - 60))
  if ! grep -q '^speed over' "$logs/bench.log" && (($(left) > 75)); then
    stage bench-rivals $(($(left) - 10)) "$python" -m benchmarks.bench_lstm_gpu --quick \
      --impls torch --save-results rivals --limit $(($(left) - 45))
  fi
  if (($(left) > 30)) && has pytest_benchmark; then
    stage bench-others $(($(left) - 10)) "$python" -m pytest benchmarks/bench_spectral_norm.py \
      benchmarks/bench_gradient_penalty.py --benchmark-only -q -k GPU --save-results others \
      --seconds 0.4 && sed -n '/=== benchmarks/,$p' "$logs/bench-others.log" | cut -c -200
  fi
  for name in bench bench-rivals; do
    [[ ! -f $logs/$name.log ]] || sed -n '/^speed over/,$p' "$logs/$name.log" | cut -c -300
  done
  stage choices 20 "$python" -m benchmarks.choices
  "$python" -m benchmarks.choices --table
}

# The log beside the results that came of it, and both into $OUT.
keep() {
  local file folder
  tail -n +1 "$logs"/*.log | sed -e "s|$root|.|g" -e "s|$logs|logs|g" >"$logs/all"
  while read -r file; do
    folder=$(dirname "$file")
    cp "$logs/all" "$folder/run_on_gpu.log"
    [[ -z ${OUT:-} ]] || { mkdir -p "$OUT/${folder##*/}" && cp "$file" "$OUT/${folder##*/}/"; }
  done < <(find benchmarks/results -name '*.json' -newer "$logs/began")
  [[ -z ${OUT:-} ]] || cp "$logs/all" "$OUT/run_on_gpu.log"
  [[ -z ${OUT:-} ]] || cp ganlstm_fast/ops/lstm/measured.py "$OUT/"
}

touch "$logs/began"
if wants build && ! is_built; then
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
    print(dtype, ganlstm_fast.explain('cuda', dtype), sep='\n')" &&
    cut -c -400 "$logs/explain.log"
fi
if wants test; then run_tests; fi
if wants sanitize; then sanitize; fi
if wants train; then train; fi
if wants bench; then bench; fi
keep

echo
printf '%s\n' "${status[@]}"
exit $failed
