"""The benchmark frame: no speed for a wrong answer, ratios within rounds, files that read back."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks import bench_lstm, bench_lstm_gpu, bench_memory
from benchmarks.cases import LSTMShape
from benchmarks.measure import ceilings, environment, harness, lstm_work, memory
from benchmarks.measure.harness import Contender, Effort, Result, Unsupported, Work
from benchmarks.report import tables
from benchmarks.report.__main__ import main
from benchmarks.report.devices import devices
from benchmarks.report.rows import collect

ROOT = Path(__file__).resolve().parents[2]
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
    rows = harness.rows(work, [ours, absent, rival, wrong, other])[:2]
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
    rows = harness.rows(work, results)
    assert {r["rival"] for r in rows} == {"fast"}
    assert rows[0]["ratio"] > 2
    assert rows[0]["ratio_p20"] <= rows[0]["ratio"] <= rows[0]["ratio_p80"]
    assert rows[1]["ratio"] < 1
    assert rows[2]["ratio"] == 1


def test_a_share_is_of_the_named_contenders_time():
    work = _work(
        _contender("twice", ours=True, delay=20e-3, beside="once"),
        _contender("once", delay=10e-3),
        _contender("lost", beside="absent"),
    )
    results = harness.measure(work, EFFORT)
    twice, once, lost = harness.rows(work, results)
    assert 1.5 < twice["beside_ratio"] < 2.5
    assert twice["beside_ratio_p20"] <= twice["beside_ratio"] <= twice["beside_ratio_p80"]
    assert "beside" not in once
    assert "beside" not in lost


def test_ratios_are_medians_of_rounds():
    """The machine is ten times slower in the last rounds; the medians alone would say 5."""
    work = _work(_contender("ours", ours=True), _contender("rival"))
    results = [
        Result(work.contenders[0], times=[1.0, 1.0, 1.0, 10.0, 10.0]),
        Result(work.contenders[1], times=[2.0, 2.0, 5.0, 20.0, 20.0]),
    ]
    assert harness.rows(work, results)[0]["ratio"] == 2


def test_a_contender_that_raises_fails_alone(capsys):
    def fails(message):
        def prepare():
            raise RuntimeError(message)

        return prepare

    work = _work(
        Contender("rival", fails("not here\nand so on")),
        Contender("ours", fails("no launch"), ours=True),
        Contender("not for it", fails("impl='cuda' cannot run lstm: no"), ours=True),
        _contender("right", ours=True),
    )
    rival, ours, not_for_it, right = harness.measure(work, EFFORT)
    assert rival.unsupported == "not here"
    assert ours.refused == "raised RuntimeError: no launch"
    assert "no launch" in capsys.readouterr().err
    assert not_for_it.unsupported == "impl='cuda' cannot run lstm: no"
    assert right.times


def test_tf32_is_judged_as_what_it_keeps():
    work = _work(_contender("ours", error=5e-3, ours=True), _contender("rival", error=5e-3))
    assert not any(r.ready for r in harness.measure(work, EFFORT, timed=False))
    work = dataclasses.replace(work, tf32=True)
    assert all(r.ready for r in harness.measure(work, EFFORT, timed=False))


def test_bfloat16_has_its_own_tolerance():
    def contender(name, error, **options):
        call = lambda: ((TRUTH * (1 + error)).bfloat16(),)  # noqa: E731
        return Contender(name, lambda: call, **options)

    contenders = (contender("ours", 0.0, ours=True), contender("wrong", 0.2, ours=True))
    work = Work("group", "B2", {}, contenders, lambda _: (TRUTH,), torch.bfloat16)
    right, wrong = harness.measure(work, EFFORT, timed=False)
    assert right.ready
    assert "wrong answer" in wrong.refused


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


def _file(path, rows, **where):
    where = {**environment.environment("quick"), "ceilings": {}, **where}
    path.write_text(json.dumps({"ganlstm_fast_schema": 1, "environment": where, "rows": rows}))
    return str(path)


def test_report_reads_back_what_was_written(tmp_path, capsys):
    work = _work(_contender("ours", ours=True), _contender("rival"), _contender("bad", error=1))
    results = harness.measure(work, EFFORT)
    rows = harness.rows(work, results)
    good = _file(tmp_path / "good.json", rows)
    old, broken = (tmp_path / name for name in ("old.json", "broken.json"))
    old.write_text(json.dumps({"ganlstm_fast_schema": 0}))
    broken.write_text("{")
    assert main([good, *(str(p) for p in (old, broken, tmp_path / "none.json"))]) == 0
    out, err = capsys.readouterr()
    assert "**group**" in out
    assert "1.00x (fastest rival)" in out
    assert "wrong answer: output 0" in out
    assert "float32 multiply-adds not measured" in out
    assert "schema 0, expected 1" in err
    assert "not JSON" in err
    assert "No such file" in err
    assert main([str(old)]) == 2


def _ceilings(rate):
    return {name: rate for name, *_ in tables.CEILINGS}


def test_report_of_fractions_shares_and_memory(tmp_path, capsys):
    ours, rival = _contender("ours", ours=True, beside="rival"), _contender("rival")
    speed = Work("speed", "B2", {}, (ours, rival), lambda _: (TRUTH,), multiply_adds=10**9)
    peaks = dataclasses.replace(speed, group="peak memory", multiply_adds=None)
    results = [Result(ours, times=[0.05] * 3), Result(rival, times=[0.1] * 3)]
    rows = harness.rows(speed, results)
    results = [Result(ours, peaks=[30.0, 40.0, 50.0]), Result(rival, peaks=[100.0])]
    rows += harness.rows(peaks, results)
    both = {"begin": _ceilings(40e9), "end": {**_ceilings(None), "multiply_adds": 39e9}}
    files = [
        _file(tmp_path / "a.json", rows, ceilings=both),
        _file(tmp_path / "b.json", rows, isa_limits="X=avx2", isa_of_kernels="avx2"),
    ]
    main(files[:1])
    table = capsys.readouterr().out
    assert "| ours | 50 ms | 50 ms .. 50 ms | 2.00x (2.00 .. 2.00) | 50% | 0.50x of rival" in table
    assert "| ours | 40 MiB | 30 .. 50 | 0.40x of rival |" in table
    assert "float32 multiply-adds 40, then 39 G/s" in table
    assert "copy, read and written 40, then - GB/s" in table
    (device,) = devices(collect(map(Path, files)))
    table = "\n".join(map(tables.markdown_table, device.by_shape()))
    assert "ratio, default allocator, avx2 |" in table
    assert "| 50 ms | 100 ms (rival) | 50% | **2.00x** | **2.00x** |" in table
    assert "| 40 MiB | 100 MiB (rival) | **0.40x** | **0.40x** |" in table


def test_runs_of_another_kind_have_files_of_their_own(monkeypatch):
    for name in (*environment.ISA_VARIABLES, *environment.ALLOCATOR_VARIABLES, "LD_PRELOAD"):
        monkeypatch.delenv(name, raising=False)
    usual = environment.environment("full")
    assert environment.file_name(usual) == "full"
    monkeypatch.setenv("MALLOC_MMAP_MAX_", "0")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    this = {**environment.environment("full"), "isa_of_kernels": "avx2"}
    assert this["isa_limits"] == "ONEDNN_MAX_CPU_ISA=AVX2"
    assert environment.file_name(this) == "full-kept-memory-avx2"
    assert environment.device_folder(this) == environment.device_folder(usual)


@pytest.mark.skipif(ceilings._compiler() is None, reason="needs a C++ compiler")
def test_ceilings(monkeypatch):
    monkeypatch.setattr(ceilings, "WINDOWS", 1)
    monkeypatch.setattr(ceilings, "SECONDS", 0.002)
    found = ceilings.measure()
    rate = found["multiply_adds_1"]
    assert 1e8 < rate < 1e12
    assert 0.2 * rate < found["multiply_adds"]
    assert 1e8 < found["copy"] < 1e13


def test_without_a_compiler_no_ceiling_is_measured(monkeypatch):
    monkeypatch.setattr(ceilings, "_compiler", lambda: None)
    ceilings._library.cache_clear()
    assert set(ceilings.measure().values()) == {None}
    ceilings._library.cache_clear()


def test_multiply_adds():
    one = LSTMShape(2, 3, 4, 5)
    rows = 2 * 3 * 4 * 5
    count = lstm_work.multiply_adds
    assert count("LSTM forward", one) == rows * 9
    assert count("LSTM forward+backward", one) == rows * 27
    assert count("LSTM WGAN-GP step", one) == rows * (5 * 9 + 5)
    assert count("LSTM forward", one, sequence_steps=4) == 4 * 20 * 9
    critic = rows * (5 * 9 + 5) + 2 * rows * (2 * 9 + 5)
    assert count("LSTM WGAN-GP critic step", one) == critic
    two = LSTMShape(2, 3, 4, 5, layers=2, directions=2)
    assert count("LSTM forward", two) == 2 * rows * (9 + 15)
    assert count("LSTM WGAN-GP step", two) == 2 * rows * ((5 * 9 + 5 + 9 + 5) + 6 * 15)


SMALL = LSTMShape(3, 5, 4, 6)


@pytest.mark.parametrize(
    "work",
    [
        *(lstm_work.lstm_work(group, SMALL) for group in lstm_work.STEPS),
        lstm_work.lstm_work("LSTM WGAN-GP step", LSTMShape(3, 5, 4, 6, layers=2, directions=2)),
        lstm_work.bfloat16_work("LSTM forward+backward", SMALL),
        bench_lstm.packed_work(SMALL),
        bench_lstm.streaming_work(LSTMShape(1, 5, 4, 6)),
    ],
    ids=lambda work: f"{work.group}: {work.case}",
)
def test_contenders_do_the_same_work(work):
    for result in harness.measure(work, EFFORT, timed=False):
        assert result.refused is None
        assert result.unsupported is None or "bfloat16" in result.contender.name


def test_critic_step_is_the_same_for_all_and_has_real_fake_and_penalty():
    step, shape = lstm_work.CUDA_STEPS["LSTM WGAN-GP critic step"], LSTMShape(3, 5, 4, 6)
    truth = lstm_work.reference(step, shape, torch.float64)
    native = functools.partial(step, twice=lambda: environment.precision(False, cudnn=False))
    call = lstm_work.prepare(torch.nn.LSTM, native, shape, torch.float64)
    torch.testing.assert_close(list(call()), truth)
    # The penalty alone, at the same points, is another's answer.
    lstm, x, head = *call.args[:2], call.args[2][0, 0]
    scores = lambda s: lstm(s)[0].mean(0) @ head  # noqa: E731
    fake = 0.5 * x.flip(0)
    mix = torch.linspace(0, 1, 3, dtype=x.dtype)[:, None]
    between = (mix * x + (1 - mix) * fake).detach().requires_grad_()
    (grad,) = torch.autograd.grad(scores(between).sum(), between)
    norms = grad.norm(dim=2).norm(dim=0)
    loss = scores(fake).mean() - scores(x).mean() + 10 * (norms - 1).square().mean()
    torch.testing.assert_close(truth[0], loss.detach())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize("group", lstm_work.CUDA_STEPS)
def test_contenders_do_the_same_work_on_a_gpu(group, tf32):
    work = lstm_work.cuda_work(group, SMALL, torch.float32, tf32, recompute=True)
    for result in harness.measure(work, EFFORT):
        assert result.refused is None
        assert result.unsupported is not None or (result.times and result.device_mib > 0)


def test_short_table():
    names = ("FastLSTM, cuda", "FastLSTM, cell", "FastLSTM, triton", "nn.LSTM, cuDNN")
    cuda, cell, triton, rival = (_contender(n, ours=n != "nn.LSTM, cuDNN") for n in names)
    work = Work("CUDA LSTM forward, tf32", "B2", {"T": 10}, (cuda, rival), lambda _: (TRUTH,))
    results = [
        Result(cuda, times=[1e-4] * 3),
        Result(cell, refused="wrong answer: output 0"),
        Result(triton, unsupported="too wide"),
        Result(rival, times=[2e-4] * 3),
    ]
    rows = harness.rows(work, results)
    assert bench_lstm_gpu.short_table(rows) == (
        "forward, tf32; B2; nn.LSTM, cuDNN 200 us (20.00 us a step) | cuda 2.00x "
        "(10.00 us a step); cell wrong or failed; triton -"
    )
    peaks = dataclasses.replace(work, group="peak memory, CUDA LSTM forward, tf32")
    results = [Result(cuda, peaks=[30.0]), Result(rival, peaks=[100.0])]
    rows = harness.rows(peaks, results)
    line = "peak memory, forward, tf32; B2; nn.LSTM, cuDNN 100 MiB | cuda 30 MiB"
    assert bench_lstm_gpu.short_table(rows) == line


def test_works_have_names_of_their_own():
    for preset in ("quick", "default", "full"):
        works = bench_lstm.works(preset) + bench_memory.works(preset)
        works += bench_lstm_gpu.works(preset)
        assert len({(w.group, w.case) for w in works}) == len(works)
        for work in works:
            names = [c.name for c in work.contenders]
            assert len(set(names)) == len(names)
            assert {c.beside for c in work.contenders} <= {None, *names}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux' /proc")
def test_peak_is_of_the_call_alone():
    used = [torch.ones(2**23)]  # 32 MiB, of which nothing may be left to hide the next 24
    used.clear()

    def call():
        freed = torch.ones(6 * 2**20)  # 24 MiB
        return (freed[:1].clone(),)

    assert 20 < memory.peak_mib(call) < 30


@pytest.mark.slow
def test_memory_is_measured_in_a_process_of_its_own(monkeypatch):
    work = next(w for w in bench_memory.works("full") if "B32" in w.case)
    small = dataclasses.replace(work.small, contenders=work.small.contenders[:1])
    work = dataclasses.replace(work, contenders=work.contenders[:1], small=small)
    (result,) = memory.measure_memory(work, EFFORT)
    assert result.ready
    assert len(result.peaks) == 1
    assert 5 < result.peaks[0] < 500
    monkeypatch.setattr(memory.sys, "executable", "false")
    (result,) = memory.measure_memory(work, EFFORT)
    assert "exit 1" in result.unsupported


@pytest.mark.slow
def test_command_line(tmp_path):
    """Through pytest itself: the JSON holds the rows, and no host name. The limit leaves out all
    but the first work. Capitals in the name of a case do not matter."""
    file = tmp_path / "out.json"
    command = [sys.executable, "-m", "pytest", "benchmarks", "--benchmark-only", "--quick"]
    command += ["--cases", "INTERPOLATE", "--cases", "penalty, *", "--seconds", "0.01"]
    command += ["--limit", "0", "-rs", "-p", "no:cacheprovider", f"--benchmark-json={file}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "left out by --limit" in done.stdout
    assert "speed over the fastest rival" in done.stdout
    content = json.loads(file.read_text())
    assert {row["group"] for row in content["rows"]} == {"interpolate"}
    names = {r["implementation"] for r in content["rows"]}
    assert names == {"interpolate", "torch.lerp", "a*x + (1-a)*y"}
    told = {"device", "torch", "threads", "shapes", "dtype", "allocator", "isa_limits"}
    assert told <= content["rows"][0].keys()
    assert content["environment"]["ceilings"].keys() == {"begin", "end"}
    assert "node" not in content["machine_info"]
    stats = content["benchmarks"][0]["stats"]
    assert stats["median"] == pytest.approx(content["rows"][0]["median_s"], rel=1e-6)
