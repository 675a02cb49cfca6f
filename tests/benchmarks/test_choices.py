"""What ``auto`` takes on a GPU, by size and by what was measured; without a GPU."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from benchmarks import choices
from benchmarks.report.rows import RESULTS, collect
from ganlstm_fast import explain, gradient_penalty, use_impl
from ganlstm_fast.ops import backends
from ganlstm_fast.ops.lstm import fit
from ganlstm_fast.ops.lstm.fit import FORWARD, SECOND_ORDER, TRAINING
from ganlstm_fast.ops.lstm.measured import FASTEST, SOURCES
from tests.fake_gpu import RUNS, OnGPU, pretend

ROOT = Path(__file__).resolve().parents[2]


def chosen(
    work: str,
    hidden: int,
    dtype: torch.dtype = torch.float32,
    impl: str | None = None,
) -> str:
    return fit.choose(impl, OnGPU(dtype), hidden, work)


@pytest.fixture
def h100(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    monkeypatch.setattr(torch.backends.cudnn.rnn, "fp32_precision", "tf32")


def test_the_table_is_what_the_results_give(capsys: pytest.CaptureFixture[str]) -> None:
    assert choices.main(["--check"]) == 0, capsys.readouterr().out
    for sources in SOURCES.values():
        for _, folder, files in sources:
            assert all((ROOT / folder / file).is_file() for file in files)


def test_what_shows_that_an_implementation_is_right_is_there() -> None:
    shown_by = {this.proven for known in backends.FAMILIES.values() for this in known}
    assert all((ROOT / path).is_file() for path in shown_by - {None, "make test"})


@pytest.mark.usefixtures("h100")
@pytest.mark.parametrize(
    ("work", "by_hidden"),
    [
        # cuDNN was faster at 24 and 64, and at 128 in some results; ours from 256 to 512.
        (FORWARD, {1: "torch", 24: "torch", 128: "torch", 200: "torch", 256: "cuda", 300: "cuda"}),
        (FORWARD, {512: "cuda", 513: "torch"}),
        (
            TRAINING,
            {24: "torch", 64: "torch", 128: "torch", 256: "cuda", 512: "cuda", 1024: "torch"},
        ),
        (SECOND_ORDER, {1: "cuda", 24: "cuda", 128: "cuda", 512: "cuda", 592: "cuda", 593: "cell"}),
    ],
)
def test_float32_with_tf32(work: str, by_hidden: dict[int, str]) -> None:
    assert {hidden: chosen(work, hidden) for hidden in by_hidden} == by_hidden


@pytest.mark.usefixtures("h100")
def test_other_dtypes() -> None:
    bf16, fp16, fp64 = torch.bfloat16, torch.float16, torch.float64
    assert [chosen(FORWARD, h, bf16) for h in (63, 64, 128, 200, 256, 257)] == [
        *("torch", "cuda", "cuda", "cuda", "cuda", "torch")
    ]
    assert [chosen(work, 768, fp16) for work in fit.WORKS] == ["torch", "torch", "cuda"]
    assert [chosen(SECOND_ORDER, 1185, dtype) for dtype in (fp16, bf16)] == ["cell"] * 2
    assert [chosen(work, 64, fp64) for work in fit.WORKS] == ["torch", "torch", "cell"]


@pytest.mark.usefixtures("h100")
def test_without_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    """At sizes above 256, where nothing was measured."""
    monkeypatch.setattr(torch.backends.cudnn.rnn, "fp32_precision", "ieee")
    assert [chosen(work, 256) for work in fit.WORKS] == ["cuda", "cuda", "cuda"]
    assert [chosen(work, 512) for work in fit.WORKS] == ["torch", "torch", "cuda"]


@pytest.mark.parametrize(("capability", "second"), [((8, 6), "cell"), ((12, 0), "cuda")])
def test_a_gpu_that_nobody_has_measured(
    capability: tuple[int, int], second: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, capability)
    if capability < (9, 0):
        monkeypatch.setattr(fit, "why_not_cuda", lambda *_: "needs thread-block clusters")
    assert [chosen(work, 512) for work in fit.WORKS] == ["torch", "torch", second]
    first, *others = explain("cuda").splitlines()
    kernels = "cell" if second == "cell" else "cuda up to H 592, else cell"
    assert first == (
        f"lstm: torch (cuDNN), and where a backward is recorded {kernels}; "
        f"nobody has measured tf32 on sm_{capability[0]}{capability[1]}"
    )
    assert ("  cuda: needs thread-block clusters" in others) == (second == "cell")


@pytest.mark.usefixtures("h100")
def test_ours_are_taken_only_where_they_won() -> None:
    """Where torch's LSTM is taken, the file has what that call took, or it is not known."""
    runs = collect([RESULTS])
    lines = [list(line.values()) for line in choices.table(runs)]
    assert {line[1] for line in lines} == set(fit.WORKS)
    for numbers, work, case, taken, _, _, ratio, file in lines:
        of = (numbers, work, case, taken, file)
        if taken != "torch":
            assert ratio == "-" or float(ratio.rstrip("x")) >= 1.0, of
        if case == "B64 T128 I64 H128" and work == SECOND_ORDER:
            assert float(ratio.rstrip("x")) >= 25, of
    # nn.LSTM's own time is never put in the place of FastLSTM's.
    rows = {
        (f"{1e6 * row['median_s']:.0f} us", f"{row['ratio']:.2f}x")
        for run in runs
        for row in run.rows
        if row["implementation"] == "FastLSTM, torch" and row.get("median_s") and row.get("ratio")
    }
    of_torch = {(line[4], line[6]) for line in lines if line[3] == "torch"}
    assert of_torch <= rows | {("-", "-")}
    assert of_torch & rows


@pytest.mark.usefixtures("h100")
def test_a_penalty_says_that_a_second_order_comes() -> None:
    """The critic of a penalty starts with our kernels, instead of cuDNN first and ours after it."""
    seen = []

    def critic(x: torch.Tensor) -> torch.Tensor:
        seen.append(chosen(TRAINING, 24))
        return x.square().sum(1)

    real, fake = torch.randn(2, 4, 3)
    gradient_penalty(critic, real, fake)
    with torch.no_grad():  # a value to look at: nothing is differentiated again
        gradient_penalty(critic, real, fake)
    critic(real)
    assert seen == ["cuda", "torch", "torch"]


@pytest.mark.usefixtures("h100")
def test_families_without_sizes() -> None:
    for family in ("spectral_norm", "gradient_penalty"):
        assert backends.resolve(family, None, "cuda", torch.float32) == "cuda"


@pytest.mark.usefixtures("h100")
def test_a_default_is_a_preference_and_an_argument_is_not() -> None:
    resolve = backends.resolve
    with use_impl("cell"):
        assert chosen(FORWARD, 24) == "cell"
        assert resolve("lstm", None, "cpu", torch.float32) == "cpu"
        assert resolve("spectral_norm", None, "cuda", torch.float32) == "cuda"
        assert chosen(FORWARD, 24, impl="torch") == "torch"
        assert chosen(FORWARD, 24, impl="auto") == "torch"
    with use_impl("cpu"):
        assert chosen(SECOND_ORDER, 24) == "cuda"
    with use_impl("cuda", "lstm"), pytest.raises(RuntimeError, match="takes float32, float16 and"):
        chosen(FORWARD, 24, torch.float64)
    with pytest.raises(RuntimeError, match="impl='cuda' cannot run lstm: it has no room"):
        chosen(FORWARD, 2048, impl="cuda")
    with pytest.raises(RuntimeError, match="impl='cpu' cannot run lstm: runs on cpu, not on cuda"):
        chosen(FORWARD, 24, impl="cpu")
    of_a_block = (
        "the default impl 'cuda', of use_impl or GANLSTM_FAST_IMPL, cannot run lstm: it has"
    )
    with use_impl("cuda", "lstm"), pytest.raises(RuntimeError, match=of_a_block):
        chosen(FORWARD, 2048)


@pytest.mark.usefixtures("h100")
def test_without_cudnn_ours_are_taken_at_first_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code for WGAN-GP has turned it off; torch's LSTM is then small kernels for each step."""
    with torch.backends.cudnn.flags(enabled=False):
        assert [chosen(work, 24) for work in fit.WORKS] == ["cuda"] * 3
    assert chosen(FORWARD, 24) == "torch"


def test_a_full_gpu_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, probed=(13000, 13000, "out of memory"))
    with pytest.warns(RuntimeWarning, match="does not run on this GPU: out of memory"):
        assert chosen(SECOND_ORDER, 24) == "torch"
    monkeypatch.setattr(backends, "_probe_gpu", lambda _: RUNS)
    assert chosen(SECOND_ORDER, 24) == "cuda"


def test_a_graph_does_not_ask_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is no tensor, which Dynamo refuses."""
    pretend(monkeypatch)
    monkeypatch.setattr(backends, "_probe_gpu", lambda _: pytest.fail("asked"))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert backends.resolve("spectral_norm", None, "cuda", torch.float32) == "cuda"


@pytest.mark.parametrize(
    ("capability", "probed", "message"),
    [
        (
            (9, 0),
            (12040, 13000, "CUDA driver version is insufficient"),
            "needs a driver for CUDA 13.0 (580 or newer), this one is for CUDA 12.4; update it, or "
            "build ganlstm_fast with an older nvcc",
        ),
        (
            (8, 0),
            (13000, 13000, "no kernel image is available"),
            "does not run on this GPU: no kernel image is available",
        ),
        (
            (7, 5),
            (13000, 13000, ""),
            "needs a GPU of compute capability 8.0 or newer, this one has 7.5",
        ),
    ],
    ids=["driver", "image", "capability"],
)
def test_a_gpu_that_the_kernels_do_not_run_on(
    capability: tuple[int, int],
    probed: tuple[int, int, str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``auto`` warns once and falls back, ``explain`` says why, a named implementation raises."""
    pretend(monkeypatch, capability, probed)
    assert explain("cuda").splitlines()[:2] == [
        "lstm: torch, torch's LSTM at first order",
        f"  cuda: {message}",
    ]
    with pytest.warns(RuntimeWarning, match="runs lstm without its own kernels") as told:
        assert [chosen(work, 24) for work in fit.WORKS] == ["torch"] * 3
    assert [str(w.message) for w in told] == [
        f"ganlstm_fast runs lstm without its own kernels: {message}"
    ]
    with pytest.warns(RuntimeWarning, match="runs spectral_norm without its own kernels"):
        assert backends.resolve("spectral_norm", None, "cuda", torch.float32) == "reference"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chosen(FORWARD, 24)
    with pytest.raises(RuntimeError, match="impl='cell' cannot run lstm: ") as error:
        chosen(FORWARD, 24, impl="cell")
    assert str(error.value).endswith(message)


def test_kernels_that_were_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = backends._Library(False, "the cuda kernels were not built (reinstall)")
    pretend(monkeypatch, library=missing)
    assert chosen(SECOND_ORDER, 24) == "triton"
    with pytest.warns(RuntimeWarning, match=r"without its own kernels: .* \(reinstall\)"):
        assert chosen(SECOND_ORDER, 512) == "torch"
    assert "  second order: triton up to H 64" in explain("cuda").splitlines()


@pytest.mark.usefixtures("h100")
def test_explain() -> None:
    assert explain("cuda").splitlines() == [
        "lstm: by H, as measured in benchmarks/results/nvidia-h100-80gb-hbm3-sm-90 (NVIDIA H100 "
        "80GB HBM3; default.json, eager-and-graph.json)",
        "  forward: cuda at H 256 to 512, else torch (cuDNN)",
        "  forward+backward: cuda at H 256 to 512, else torch (cuDNN)",
        "  second order: cuda up to H 592, else cell",
        "  triton: one Triton launch for all steps of a pass; by name only",
        "  reference: plain PyTorch, differentiable to any order; by name only",
        "spectral_norm: cuda, one launch for all weights of a pass; its speed has not been "
        "measured",
        "  triton: a few Triton launches for all weights of a pass; by name only",
        "  reference: plain PyTorch, differentiable to any order; by name only",
        "gradient_penalty: cuda, one launch a pass; its speed has not been measured",
        "  triton: one Triton launch or two a pass; by name only",
        "  reference: plain PyTorch, differentiable to any order; by name only",
    ]
    assert explain("cuda", torch.bfloat16).splitlines()[1] == (
        "  forward: cuda at H 64 to 256, else torch (cuDNN)"
    )
    with use_impl("cell", "lstm"):
        assert explain("cuda").startswith("lstm: cell (chosen by you), a product and one kernel")


def test_every_measured_size_is_in_order() -> None:
    for table in FASTEST.values():
        for rows in table.values():
            assert [h for h, _ in rows] == sorted({h for h, _ in rows})
