"""What is made of result files: tables, the picture, the pages' blocks."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.cases import GROUPS
from benchmarks.measure import harness
from benchmarks.measure.harness import Contender, Effort, Work
from benchmarks.report import rows, tables
from benchmarks.report.__main__ import main
from benchmarks.report.devices import devices
from ganlstm_fast.ops import backends
from tests.benchmarks.made_results import CEILING, CEILINGS, GPU, NAMES, SHAPES, case, three, write

pictures = pytest.importorskip("benchmarks.report.pictures", reason="needs matplotlib")
pages = pytest.importorskip("benchmarks.report.pages")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def results(tmp_path):
    """A CPU with two kinds of run and a GPU, in a folder each."""
    folder = tmp_path / "results"
    content = [
        *three(1e-3, 2e-3, 4e-3, multiply_adds=10**7),
        *three(2e-3, 1e-3, 4e-3, shape="B8", shapes={**SHAPES, "B": 8}),
        *case(
            {n: [m] for n, m in zip(NAMES, (10.0, 40.0, 50.0), strict=True)},
            unit="peaks",
            group="peak memory, LSTM forward",
        ),
        *case(
            {"ours": [1e-3] * 9, "<b>absent</b>": "the package absent is not installed"},
            group="spectral norm forward",
            shape="4x4",
            shapes={"weights": [[4, 4]]},
        ),
    ]
    write(folder / "cpu" / "default.json", content)
    kept = three(1e-3, 3e-3, 4e-3)
    write(folder / "cpu" / "kept.json", kept, allocator="MALLOC_MMAP_MAX_=0")
    of_gpu = []
    for T in (8, 16, 32):
        shapes = {"shape": f"T{T}", "shapes": {**SHAPES, "T": T}, "multiply_adds": 10**6 * T}
        of_gpu += three(
            1e-5 * T,
            2e-5 * T,
            3e-5 * T,
            group="CUDA LSTM forward, tf32",
            **shapes,
            device="cuda",
            tf32=True,
        )
        for row in of_gpu[-3:]:
            row["peak_mib"] = T * (2.0 if row["ours"] else 3.0)
    write(folder / "gpu" / "default.json", of_gpu, **GPU)
    return folder


# ----------------------------------------------------------------------------------------- tables


def test_the_page_has_a_column_for_each_kind_of_run(results):
    out = pages.all_devices(devices(rows.collect([results])))
    line = "| LSTM forward | B4 | ours | 1 ms | 2 ms (rival) | 10% | **2.00x** | **3.00x** |"
    assert line in out
    assert (
        "| peak memory, LSTM forward | B4 | ours | 10 MiB | 40 MiB (rival) | **0.25x** | - |" in out
    )
    assert "## Some GPU, sm_90" in out


def test_tables_of_a_terminal_are_aligned():
    reason = "the package of the rival is not installed: " * 2
    lines = [{"a": "1", "b": "long"}, {"a": "123", "b": "-"}, {"a": "x", "b": reason}]
    first, _, second, third, last = tables.markdown_table(lines, aligned=True).splitlines()
    assert second.startswith("| 1   | long ")
    assert len(first) == len(second) == len(third) < len(last)
    assert tables.markdown_table(lines[:2]).splitlines()[2:] == ["| 1 | long |", "| 123 | - |"]
    assert tables.markdown_table([]) == ""


def test_columns_that_may_be_empty_are_left_out():
    line = {"a": "-", tables.FRACTION: "-", tables.BESIDE: "-"}
    assert tables.markdown_table([line]).splitlines()[0] == "| a |"
    filled = tables.markdown_table([line, line | {tables.BESIDE: "0.5x"}])
    assert filled.splitlines()[0] == f"| a | {tables.BESIDE} |"


def test_of_two_runs_the_newer_is_taken_and_a_quick_one_last(tmp_path):
    old, new, quick, undated = (tmp_path / f"{n}.json" for n in ("c", "b", "a", "d"))
    write(old, three(1.0, 2.0, 9.0), measured="2026-01-01 10:00", preset="full")
    write(new, three(1.0, 3.0, 9.0), measured="2026-01-02 09:00")
    write(quick, three(1.0, 4.0, 9.0), measured="2026-01-03 10:00", preset="quick")
    write(undated, three(1.0, 5.0, 9.0), preset="full")

    def ratio(*paths):
        (device,) = devices(rows.collect(paths))
        (found,) = device.cases().values()
        return found.first["ratio"]

    assert ratio(old, new, quick, undated) == 3
    assert ratio(new, undated) == 3
    assert ratio(quick, undated) == 5
    assert ratio(quick) == 4


def test_the_ceiling_is_that_of_the_rows_arithmetic():
    environment = {"ceilings": CEILINGS}
    assert rows.rate(environment, {"dtype": "float32"}) == 100e9
    assert rows.rate(environment, {"dtype": "bfloat16"}) == 200e9
    assert rows.rate(environment, {"dtype": "float32", "tf32": True}) == 100e9
    with_tf32 = {"ceilings": {"begin": {**CEILING, "tf32": 300e9}}}
    assert rows.rate(with_tf32, {"dtype": "float32", "tf32": True}) == 300e9
    assert rows.rate({"ceilings": {"begin": {**CEILING, "bf16_dot": None}}}, {"dtype": "bfloat16"})
    assert rows.rate({}, {"dtype": "float32"}) is None


def test_a_table_of_a_file_has_the_cases_that_were_asked_for(results, capsys):
    arguments = [str(results / "cpu" / "default.json"), "--cases", "lstm forward", "b4*"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "| B4, float32 | ours | 1 ms | 1 ms .. 1 ms | 2.00x (2.00 .. 2.00)" in out
    assert "|  | rival | 2 ms | 2 ms .. 2 ms | 1.00x (fastest rival) |" in out
    assert "| ours | 10 MiB | 10 .. 10 | 0.25x of rival |" in out
    assert "spectral" not in out


def test_unknown_names_list_the_known_ones(results, capsys):
    assert main([str(results), "--cases", "B4", "nix"]) == 2
    err = capsys.readouterr().err
    assert "--cases: no 'nix'" in err
    assert {"  LSTM forward", "  B8", "  peak memory, LSTM forward"} <= set(err.splitlines())


def test_a_file_that_is_none_of_ours_is_named_and_skipped(results, capsys):
    (results / "cpu" / "old.json").write_text('{"ganlstm_fast_schema": 0}')
    (results / "cpu" / "broken.json").write_text("{")
    (results / "cpu" / "half.json").write_text('{"ganlstm_fast_schema": 1, "rows": [{}]}')
    (results / "cpu" / "row.json").write_text(
        '{"ganlstm_fast_schema": 1, "environment": {}, "rows": [{"group": "a"}]}'
    )
    (results / "cpu" / "anothers.json").write_text("{}")
    assert main([str(results)]) == 0
    skipped = [line for line in capsys.readouterr().err.splitlines() if line.startswith("skipped")]
    assert len(skipped) == 4
    assert "broken.json: not JSON" in skipped[0]
    assert "half.json: incomplete, lacks 'environment'" in skipped[1]
    assert "old.json: schema 0, expected 1" in skipped[2]
    assert "row.json: incomplete, lacks 'implementation'" in skipped[3]
    assert main([str(results / "cpu" / "anothers.json")]) == 2
    assert "anothers.json: schema None, expected 1" in capsys.readouterr().err


# --------------------------------------------------------------------------------- the measurements


def test_a_rival_that_is_left_out_is_checked_and_not_timed():
    truth = torch.ones(3, dtype=torch.float64)

    def contender(name, error, ours=False):
        call = lambda: ((truth * (1 + error)).float(),)  # noqa: E731
        return Contender(name, lambda: call, ours=ours)

    contenders = (contender("ours", 1.5e-5, ours=True), contender("a", 1e-5), contender("b", 0))
    work = Work("group", "B2", {}, contenders, lambda _: (truth,))
    effort = Effort(seconds=0.01, min_rounds=5, max_rounds=5)
    ours, a, b = harness.measure(work, effort, wanted=lambda name: name == "b")
    assert ours.times  # by the tolerance that the error of "a" gives
    assert b.times
    assert not a.times
    assert harness.rows(work, [ours, a, b])[1]["skipped"] == "left out"


def test_a_package_that_is_missing_is_a_skipped_row_with_its_name():
    def prepare():
        import a_package_that_nobody_has

        return a_package_that_nobody_has

    work = Work("group", "B2", {}, (Contender("rival", prepare),), lambda _: ())
    (result,) = harness.measure(work, Effort(seconds=0.01, min_rounds=5))
    (row,) = harness.rows(work, [result])
    assert row["skipped"] == "the package a_package_that_nobody_has is not installed"


@pytest.mark.slow
def test_a_run_of_unknown_cases_lists_the_known_ones():
    command = [sys.executable, "-m", "pytest", "benchmarks", "--benchmark-only", "--quick"]
    command += ["-q", "-p", "no:cacheprovider", "--collect-only", "--cases", "nix"]
    unknown = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert unknown.returncode == pytest.ExitCode.USAGE_ERROR
    assert {"  interpolate", "  LSTM forward"} <= set(unknown.stderr.splitlines())


# -------------------------------------------------------------------------------- picture, growth


def test_the_picture_shows_something(results, tmp_path):
    from PIL import Image

    for device in devices(rows.collect([results])):
        file = tmp_path / f"{device.slug}.png"
        pictures.write(file, device)
        assert pictures.digest_of(file) == pictures.digest(device)
        with Image.open(file) as image:
            image.load()
            assert min(image.size) > 100
            colours = {colour[:3] for _, colour in image.getcolors(2**24)}
        assert {(255, 255, 255), (0, 0x72, 0xB2)} <= colours


def test_slopes_hold_all_other_sizes_fixed(results):
    gpu = next(d for d in devices(rows.collect([results])) if d.hardware == "cuda")
    gpu_rows = [row for case in gpu.cases().values() for row in case.rows]
    lines = [list(line.values()) for line in tables.slopes(gpu_rows)]
    assert lines[0] == ["CUDA LSTM forward, tf32: B4 I3 H5", "T 8 16 32", "ours", "1.00"]
    assert [line[2] for line in lines] == list(NAMES)
    squares = [row | {"median_s": 3.0 * row["shapes"]["T"] ** 2} for row in gpu_rows]
    assert {line["exponent"] for line in tables.slopes(squares)} == {"2.00"}
    assert tables.slopes(gpu_rows[: 2 * len(NAMES)]) == []


def test_samples_are_a_batch_and_equal_weights_are_layers():
    sizes = lambda shapes: tables.sizes_of({"shapes": shapes})  # noqa: E731
    assert sizes({"samples": [8, 1000, 16]}) == {"B": 8, "sample": "1000x16"}
    assert sizes({"weights": [[32, 32, 3, 3]] * 5}) == {"layers": 5, "weight": "32x32x3x3"}
    assert sizes({"weights": [[3, 2], [2, 1]]}) == {}


def test_short_names():
    names = ["CUDA LSTM forward, tf32", "CUDA LSTM forward+backward, tf32"]
    assert list(pictures.short_names(names).values()) == ["forward", "forward+backward"]
    names = ["spectral norm forward", "spectral norm, 3 calls"]
    assert list(pictures.short_names(names).values()) == ["forward", "3 calls"]
    assert list(pictures.short_names(["loss, a", "loss, a, b"]).values()) == ["loss, a", "b"]
    assert pictures.short_names(["LSTM forward"]) == {"LSTM forward": "LSTM forward"}


def test_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "a.png"
    rows.write_whole(file, "before")

    def fails(path, content):
        with path.open("wb") as target:
            target.write(content[:2])
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_bytes", fails)
    with pytest.raises(OSError, match="no space"):
        rows.write_whole(file, "after")
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]


# ------------------------------------------------------------------------------------------ pages


def test_the_pages_are_what_the_committed_results_give(capsys):
    found = main(["--check-readme"])
    out, err = capsys.readouterr()
    assert found == 0, out + err


def test_the_readme_has_four_figures_and_six_measurements_one_of_them_lost():
    known = devices(rows.collect([rows.RESULTS]))
    figures, measurements = pages.figures(known), pages.measurements(known)
    assert len(figures.splitlines()) == 2 + 4
    assert len(measurements.splitlines()) == 2 + 6
    assert {"H100", "EPYC, AVX2, 2 threads"} <= {c.strip() for c in figures.split("|")}
    assert re.search(r"\| 0\.\d\dx \(0\.", measurements)


def test_a_figure_of_a_wrong_answer_is_not_shown(tmp_path):
    def figures(ours):
        times = {"FastLSTM": ours, "rival": [2.0] * 9}
        content = case(times, group="LSTM WGAN-GP step", shape=pages.LSTM)
        where = {"device": "AMD EPYC (family 25, model 1)"}
        return pages.figures(devices(rows.collect([write(tmp_path / "a.json", content, **where)])))

    assert "**4.0x** rival | EPYC, AVX2, 2 threads |" in figures([0.5] * 9)
    assert figures("wrong answer: output 0") == ""


@pytest.fixture
def own_pages(results, tmp_path, monkeypatch):
    """Pages of the results of this test: the README, and that of all results."""
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    for module in (pages, importlib.import_module("benchmarks.report.__main__")):
        monkeypatch.setattr(module, "RESULTS", results)
    readme, page = tmp_path / "README.md", results / "README.md"
    for path, names in ((readme, ("figures", "measurements")), (page, ("devices", "trainings"))):
        path.write_text(f"before\n{''.join(map(block, names))}after\n")
    return readme, page


def block(name, inside="old"):
    return f"<!-- {name}: {pages.COMMAND} -->\n\n{inside}\n\n{pages.END}\n"


def test_pages_are_written_between_their_markers(own_pages, results, capsys):
    readme, page = own_pages
    assert main(["--check-readme"]) == 1
    assert "old" in readme.read_text()
    assert "old" in page.read_text()
    assert main(["--update-readme"]) == 0
    assert readme.read_text().startswith(
        f"before\n<!-- figures: {pages.COMMAND} -->\n\n\n\n<!-- end"
    )
    text = page.read_text()
    assert text.startswith(f"before\n<!-- devices: {pages.COMMAND} -->\n\n## Some CPU, AVX2, 2 thr")
    assert text.endswith(f"\n\n{pages.END}\nafter\n")
    assert "| LSTM forward | ours | 2 | 0.50 .. **1.25x** .. 2.00 | **3.00x** |" in text
    assert "Slower than the fastest rival: LSTM forward, B8 (ours, 0.50x)." in text
    assert "| LSTM forward | B4 | ours | 1 ms |" in text
    assert "[default.json](cpu/default.json): default allocator;" in text
    assert "](pictures/some-cpu-avx2-2-threads.png)" in text
    assert (results / "pictures/some-cpu-avx2-2-threads.png").exists()
    capsys.readouterr()
    assert main(["--check-readme"]) == 0
    assert capsys.readouterr().out == ""


def test_results_that_changed_are_seen(own_pages, results, capsys):
    main(["--update-readme"])
    shown = own_pages[1].read_text()
    write(results / "cpu" / "default.json", three(1e-3, 2.5e-3, 4e-3))
    assert main(["--check-readme"]) == 1
    out = capsys.readouterr().out
    assert "results/README.md is not what the results give" in out
    assert "some-cpu-avx2-2-threads.png is not a picture of the results" in out
    assert "some-gpu" not in out
    assert "**2.50x**" in out
    assert own_pages[1].read_text() == shown


def test_groups_without_a_run_are_told(own_pages, results):
    main(["--update-readme"])
    of_cpu, of_gpu = own_pages[1].read_text().split("## Some GPU, sm_90")
    missing = next(line for line in of_cpu.splitlines() if line.startswith("No run on this"))
    assert "LSTM streaming" in missing
    assert "CUDA" not in missing
    assert "LSTM forward;" not in missing
    assert "CUDA LSTM forward+backward, tf32" in of_gpu
    assert "has run these yet" not in of_gpu
    (results / "gpu" / "default.json").unlink()
    main(["--update-readme"])
    text = own_pages[1].read_text()
    last = next(line for line in text.splitlines() if line.startswith("**No GPU has run these yet"))
    assert "; CUDA LSTM forward, tf32;" in last


def test_groups_are_those_of_the_benchmarks(monkeypatch):
    """On a machine with a GPU; nothing of it runs here."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(backends, "why_not_gpu", lambda *_: None)
    found = {kind: set() for kind in GROUPS}
    for path in (ROOT / "benchmarks").glob("bench_*.py"):
        for work in importlib.import_module(f"benchmarks.{path.stem}").works("full"):
            found[work.device].add(work.group)
    assert found == {kind: set(groups) for kind, groups in GROUPS.items()}
    assert all(len(set(groups)) == len(groups) for groups in GROUPS.values())


@pytest.mark.parametrize(
    "text", ["none", "{f} {f} {e} {m} {e}", "{m} {e} {f} {e}", "{f} {e} {m}", "{f} {m} {e} {e}"]
)
def test_a_readme_without_its_markers_is_left_alone(own_pages, text, capsys):
    f, m = (f"<!-- {name}: {pages.COMMAND} -->" for name in ("figures", "measurements"))
    text = text.format(f=f, m=m, e=pages.END)
    own_pages[0].write_text(text)
    before = own_pages[1].read_text()
    assert main(["--update-readme"]) == 2
    assert "once each and in this order" in capsys.readouterr().err
    assert own_pages[0].read_text() == text
    assert own_pages[1].read_text() == before


def test_without_matplotlib_pages_say_what_they_need(results, monkeypatch, capsys):
    for name in ("pages", "pictures"):
        monkeypatch.delitem(sys.modules, f"benchmarks.report.{name}")
        monkeypatch.delattr(f"benchmarks.report.{name}")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["--update-readme"]) == 2
    assert "needs matplotlib" in capsys.readouterr().err
    assert main([str(results)]) == 0


def test_options_that_do_not_go_together(capsys):
    for wrong in (["--fail"], ["a.json", "--compare", "b", "c"], ["a.json", "--check-readme"]):
        with pytest.raises(SystemExit) as exit:
            main(wrong)
        assert exit.value.code == 2
    assert "benchmarks/results" in capsys.readouterr().err
