"""The benchmark frame: no speed for a wrong answer, ratios within rounds, files that read back."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
if not BENCHMARKS.is_dir():
    pytest.skip("no benchmarks beside the tests", allow_module_level=True)
sys.path.insert(0, str(BENCHMARKS))

import harness  # noqa: E402
import report  # noqa: E402
from harness import Contender, Effort, Unsupported, Work  # noqa: E402

TRUTH = torch.linspace(1, 2, 5, dtype=torch.float64)
EFFORT = Effort(seconds=0.05, min_rounds=5, max_rounds=7)


def _contender(name, error=0.0, ours=False, delay=0.0, **options):
    def call():
        time.sleep(delay)
        return ((TRUTH * (1 + error)).float(),)

    return Contender(name, lambda: call, ours=ours, **options)


def _unsupported():
    raise Unsupported("no such thing here")


def _work(*contenders):
    return Work("group", "B2", {"B": 2}, contenders, lambda _: (TRUTH,))


def test_wrong_and_unsupported_contenders_get_no_times():
    work = _work(
        _contender("ours", error=1e-5, ours=True),
        _contender("rival"),
        _contender("wrong rival", error=1e-2),
        Contender("absent", _unsupported),
        _contender("other thing", error=1.0, truth=lambda _: (TRUTH * 2,)),
    )
    ours, rival, wrong, absent, other = harness.measure(work, EFFORT)
    assert "relative error 1.0e-05, allowed 9.5e-07" in ours.refused
    assert not ours.times
    assert not wrong.times
    assert absent.unsupported == "no such thing here"
    assert len(rival.times) == len(other.times) >= 5
    rows = [harness.row(work, r, [ours, rival, wrong, absent, other]) for r in (ours, absent)]
    assert all(r["skipped"] and "median_s" not in r and "ratio" not in r for r in rows)


def test_error_of_the_rivals_widens_what_is_allowed():
    work = _work(_contender("ours", error=1.5e-5, ours=True), _contender("rival", error=1e-5))
    assert all(r.times for r in harness.measure(work, EFFORT))


@pytest.mark.parametrize("bad", [(TRUTH[:3].float(),), (), (torch.full((5,), torch.nan),)])
def test_wrong_shapes_and_nan_are_refused(bad):
    work = _work(Contender("ours", lambda: lambda: bad, ours=True), _contender("rival"))
    assert harness.measure(work, EFFORT, timed=False)[0].refused.startswith("wrong answer")


def test_ratio_is_to_the_fastest_rival():
    work = _work(
        _contender("ours", ours=True, delay=1e-3),
        _contender("slow", delay=40e-3),
        _contender("fast", delay=10e-3),
    )
    results = harness.measure(work, EFFORT)
    rows = [harness.row(work, r, results) for r in results]
    assert {r["rival"] for r in rows} == {"fast"}
    assert rows[0]["ratio"] > 2
    assert rows[0]["ratio_p20"] <= rows[0]["ratio"] <= rows[0]["ratio_p80"]
    assert rows[1]["ratio"] < 1
    assert rows[2]["ratio"] == 1


def test_context_is_around_every_call_and_outside_of_the_time():
    open_now = []

    @contextlib.contextmanager
    def context():
        open_now.append(1)
        time.sleep(0.05)
        yield
        open_now.pop()

    def call():
        assert open_now
        return (TRUTH.float(),)

    (result,) = harness.measure(_work(Contender("rival", lambda: call, context=context)), EFFORT)
    assert result.median < 0.05


def test_report_reads_back_what_was_written(tmp_path, capsys):
    work = _work(_contender("ours", ours=True), _contender("rival"), _contender("bad", error=1))
    results = harness.measure(work, EFFORT)
    rows = [harness.row(work, r, results) for r in results]
    content = {"ganlstm_fast_schema": 1, "environment": harness.environment("quick"), "rows": rows}
    good, old, broken = (tmp_path / name for name in ("good.json", "old.json", "broken.json"))
    good.write_text(json.dumps(content))
    old.write_text(json.dumps({**content, "ganlstm_fast_schema": 0}))
    broken.write_text("{")
    assert report.main([str(p) for p in (good, old, broken, tmp_path / "none.json")]) == 0
    out, err = capsys.readouterr()
    assert "**group**" in out
    assert "1.00x (fastest rival)" in out
    assert "wrong answer: output 0" in out
    assert "schema 0, expected 1" in err
    assert "not JSON" in err
    assert "No such file" in err
    assert report.main([str(old)]) == 2


@pytest.mark.slow
def test_command_line(tmp_path):
    """One work through pytest itself: the JSON holds its rows, and no host name."""
    file = tmp_path / "out.json"
    command = [sys.executable, "-m", "pytest", str(BENCHMARKS), "--benchmark-only", "--quick"]
    command += ["-k", "interpolate", "-p", "no:cacheprovider", f"--benchmark-json={file}"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=BENCHMARKS.parent
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "speed over the fastest rival" in done.stdout
    content = json.loads(file.read_text())
    names = {r["implementation"] for r in content["rows"]}
    assert names == {"interpolate", "torch.lerp", "a*x + (1-a)*y"}
    assert {"device", "torch", "threads", "shapes", "dtype", "allocator"} <= content["rows"][
        0
    ].keys()
    assert "node" not in content["machine_info"]
    stats = content["benchmarks"][0]["stats"]
    assert stats["median"] == pytest.approx(content["rows"][0]["median_s"], rel=1e-6)
