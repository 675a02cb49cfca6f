#!/usr/bin/env bash
# Plays a new user's first minutes, from a clone in an empty environment, and prints the seconds of
# CPU and of the clock that each stage takes. Takes some eight minutes; needs what the README names.
#
#   tests/packaging/first_minutes.sh [REPOSITORY]
#
# REPOSITORY is a folder or an address to clone; this one by default.
set -euo pipefail

repository=${1:-$(cd "$(dirname "$0")/../.." && pwd)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
TIMEFORMAT="%U %S %R"

# Nothing of the caller's but what pip needs to find packages.
keep=(PATH="$PATH" HOME="$work" LANG=C.UTF-8)
for name in ${!PIP_@} TORCH_INDEX_URL HTTPS_PROXY SSL_CERT_FILE; do
  [[ -v $name && $name != PIP_CACHE_DIR ]] && keep+=("$name=${!name}")
done

# stage NAME EXIT-CODE COMMAND...
stage() {
  local name=$1 expected=$2 code=0 user system clock
  shift 2
  { time env -i "${keep[@]}" "$@" >"$work/output" 2>&1 || code=$?; } 2>"$work/times"
  read -r user system clock <"$work/times"
  awk -v name="$name" -v cpu="$user" -v kernel="$system" -v clock="$clock" \
    'BEGIN { printf "%-46s %8.1f %8.1f\n", name, cpu + kernel, clock }'
  if [[ $code != "$expected" ]]; then
    echo "$name: expected exit code $expected, got $code" >&2
    cat "$work/output" >&2
    exit 1
  fi
}

printf "%-46s %8s %8s\n" stage "CPU, s" "clock, s"
start=$SECONDS
stage "git clone" 0 git clone --quiet "$repository" "$work/ganlstm_fast"
cd "$work/ganlstm_fast"
stage "an environment with torch" 0 make .venv/.torch
stage "the kernels, and what training needs" 0 make .venv/.train
stage "make demo: training and scores" 0 make demo
echo "to here, from nothing: $((SECONDS - start)) s"
grep "beyond chance" -B 20 "$work/output" | grep -v "step/s\|it/s" | grep "score" || true
command=.venv/bin/ganlstm-fast
stage "make demo, once more" 0 make demo
stage "import torch" 0 .venv/bin/python -c "import torch"
stage "train --help" 0 $command train --help
stage "a typo of an option" 2 $command train --stepz 3
stage "a typo of a column" 2 $command train --columns temp_mx
stage "generate" 0 $command generate runs/demo -n 100 -o made.csv
stage "evaluate --metrics quick" 0 $command evaluate runs/demo --metrics quick
stage "evaluate --metrics full" 0 $command evaluate runs/demo --metrics full
stage "report" 0 $command report runs/demo
stage "train, 200 steps" 0 $command train --steps 200 --metrics quick --out runs/short
