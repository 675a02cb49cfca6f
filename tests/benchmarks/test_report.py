"""What is made of result files: tables, pictures, the page, the README's section, comparisons."""

from __future__ import annotations

import base64
import json
import math
import random
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
if not BENCHMARKS.is_dir():
    pytest.skip("no benchmarks beside the tests", allow_module_level=True)
pytest.importorskip("matplotlib")
sys.path.insert(0, str(BENCHMARKS))

import compare  # noqa: E402
import curves  # noqa: E402
import growth  # noqa: E402
import harness  # noqa: E402
import planned  # noqa: E402
import plotting  # noqa: E402
import readme  # noqa: E402
import report  # noqa: E402
import rows  # noqa: E402
from devices import devices  # noqa: E402
from harness import Contender, Effort, Result, Work  # noqa: E402

ENVIRONMENT = {
    "device": "Some CPU",
    "isa": "AVX2",
    "isa_of_kernels": "avx2",
    "isa_of_torch": "AVX2",
    "isa_limits": "default",
    "cores": 2,
    "threads": 2,
    "torch": "2.13.0",
    "ganlstm_fast": "0.1.0",
    "python": "3.11.7",
    "commit": "abcdef0",
    "allocator": "default",
    "preset": "default",
}
GPU = {"device": "Some GPU", "isa": "sm_90", "multiprocessors": 132}
CEILING = {"multiply_adds": 100e9, "bf16_dot": 200e9, "copy": 50e9, "ping_pong": 6e-8}
CEILINGS = {"begin": CEILING, "end": {**CEILING, "multiply_adds": 90e9}}
SHAPES = {"B": 4, "T": 8, "I": 3, "H": 5, "layers": 1, "directions": 1}
NAMES = ("ours", "rival", "slow rival")


def case(times, group="LSTM forward", shape="B4", shapes=SHAPES, **options):
    """The rows of a piece of work, of times in seconds or peaks in MiB for each of ``NAMES``."""
    contenders = tuple(Contender(n, lambda: None, ours=n.startswith("ours")) for n in times)
    unit = options.pop("unit", "times")
    work = Work(group, shape, shapes, contenders, lambda _: (), **options)
    results = [
        Result(c, **{unit: list(values)} if isinstance(values, list | tuple) else {})
        for c, values in zip(contenders, times.values(), strict=True)
    ]
    for result, values in zip(results, times.values(), strict=True):
        result.unsupported = values if isinstance(values, str) else None
    return [harness.row(work, result, results) for result in results]


def three(*seconds, **options):
    times = {n: [s] * 9 for n, s in zip(NAMES, seconds, strict=True)}
    return case(times, **options)


def write(path, content, **where):
    path.parent.mkdir(parents=True, exist_ok=True)
    environment = {**ENVIRONMENT, "ceilings": CEILINGS, **where}
    text = json.dumps({"ganlstm_fast_schema": 1, "environment": environment, "rows": content})
    path.write_text(text)
    return path


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


def test_summary_has_a_column_for_each_kind_of_run(results, capsys):
    assert report.main(["--summary", str(results)]) == 0
    out, err = capsys.readouterr()
    assert not err
    line = "| LSTM forward | B4 | ours | 1 ms | 2 ms (rival) | 10% | **2.00x** | **3.00x** |"
    assert line in out
    assert (
        "| peak memory, LSTM forward | B4 | ours | 10 MiB | 40 MiB (rival) | **0.25x** | - |" in out
    )
    assert "**Some GPU, sm_90**" in out


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


def test_ratios_are_to_the_rivals_that_were_asked_for(results, capsys):
    arguments = [str(results / "cpu" / "default.json"), "--cases", "lstm forward", "b4*"]
    assert report.main([*arguments, "--rivals", "Slow*"]) == 0
    out = capsys.readouterr().out
    assert "4.00x (4.00 .. 4.00)" in out
    assert "0.20x of slow rival" in out
    assert "| rival |" not in out
    assert "spectral" not in out
    assert report.main([*arguments, "--rivals", "*rival"]) == 0
    assert "| ours | 1 ms | 1 ms .. 1 ms | 2.00x (2.00 .. 2.00)" in capsys.readouterr().out
    assert report.main([str(results / "cpu"), "--summary", "--rivals", "<b>*"]) == 0
    assert "2.00x" not in capsys.readouterr().out


def test_unknown_names_list_the_known_ones(results, capsys):
    assert report.main([str(results), "--cases", "B4", "nix"]) == 2
    err = capsys.readouterr().err
    assert "--cases: no 'nix'" in err
    assert {"  LSTM forward", "  B8", "  peak memory, LSTM forward"} <= set(err.splitlines())
    assert report.main([str(results), "--rivals", "ours"]) == 2
    assert set(capsys.readouterr().err.splitlines()[1:]) >= {"  rival", "  slow rival"}


def test_a_file_that_is_none_of_ours_is_named_and_skipped(results, capsys):
    (results / "cpu" / "old.json").write_text('{"ganlstm_fast_schema": 0}')
    (results / "cpu" / "broken.json").write_text("{")
    (results / "cpu" / "half.json").write_text('{"ganlstm_fast_schema": 1, "rows": [{}]}')
    (results / "cpu" / "row.json").write_text(
        '{"ganlstm_fast_schema": 1, "environment": {}, "rows": [{"group": "a"}]}'
    )
    (results / "cpu" / "anothers.json").write_text("{}")
    assert report.main(["--summary", str(results)]) == 0
    skipped = [line for line in capsys.readouterr().err.splitlines() if line.startswith("skipped")]
    assert len(skipped) == 4
    assert "broken.json: not JSON" in skipped[0]
    assert "half.json: incomplete, lacks 'environment'" in skipped[1]
    assert "old.json: schema 0, expected 1" in skipped[2]
    assert "row.json: incomplete, lacks 'implementation'" in skipped[3]
    assert report.main([str(results / "cpu" / "anothers.json")]) == 2
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
    assert harness.row(work, a, [ours, a, b])["skipped"] == "left out"


def test_a_package_that_is_missing_is_a_skipped_row_with_its_name():
    def prepare():
        import a_package_that_nobody_has

        return a_package_that_nobody_has

    work = Work("group", "B2", {}, (Contender("rival", prepare),), lambda _: ())
    (result,) = harness.measure(work, Effort(seconds=0.01, min_rounds=5))
    row = harness.row(work, result, [result])
    assert row["skipped"] == "the package a_package_that_nobody_has is not installed"


@pytest.mark.slow
def test_a_run_of_unknown_cases_lists_the_known_ones():
    command = [sys.executable, "-m", "pytest", str(BENCHMARKS), "--benchmark-only", "--quick"]
    command += ["-q", "-p", "no:cacheprovider", "--collect-only", "--cases", "nix"]
    unknown = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=BENCHMARKS.parent
    )
    assert unknown.returncode == pytest.ExitCode.USAGE_ERROR
    assert {"  interpolate", "  LSTM forward"} <= set(unknown.stderr.splitlines())


# --------------------------------------------------------------------------------------- pictures


class Page(HTMLParser):
    """What an HTML file consists of; raises where an element is not closed in its order."""

    VOID = ("meta", "img", "input", "br", "hr", "link")

    def __init__(self, text):
        super().__init__()
        self.open, self.found, self.cells = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["td"]:
            self.cells[-1] += data

    def of(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture
def made(results, tmp_path, capsys):
    assert report.main([str(results), "--page", str(tmp_path / "page")]) == 0
    return tmp_path / "page"


def test_pictures_exist_and_show_something(made):
    from PIL import Image

    cpu, gpu = ("some-cpu-avx2-2-threads", "some-gpu-sm-90")
    names = {
        cpu: ["memory", "roofline", "speed-up", "time-by-B"],
        gpu: ["memory-by-T", "roofline", "speed-up", "time-by-T"],
    }
    for folder, expected in names.items():
        files = sorted((made / folder).iterdir())
        assert [f.name for f in files] == [f"{name}.png" for name in expected]
        for file in files:
            with Image.open(file) as image:
                image.load()
                assert min(image.size) > 100
                colours = {colour[:3] for _, colour in image.getcolors(2**24)}
            assert {(255, 255, 255), (0, 0x72, 0xB2)} <= colours


def test_the_page_stands_alone(made):
    text = (made / "index.html").read_text()
    parsed = Page(text)
    assert not parsed.of("link")
    assert [s for s in parsed.of("script") if s] == []
    assert {a["href"][0] for a in parsed.of("a")} == {"#"}
    ids = {attributes["id"] for _, attributes in parsed.found if "id" in attributes}
    assert {a["href"][1:] for a in parsed.of("a")} <= ids
    sources = [image["src"] for image in parsed.of("img")]
    assert len(sources) == 8
    assert all(image["alt"] for image in parsed.of("img"))
    for source in sources:
        kind, _, data = source.partition(",")
        assert kind == "data:image/svg+xml;base64"
        assert ElementTree.fromstring(base64.b64decode(data)).tag.endswith("svg")
    for request in ("@import", "url(", "src=http", "fetch(", "XMLHttp"):
        assert request not in text.replace("data:", "")
    assert any(m.get("name") == "viewport" for m in parsed.of("meta"))
    policy = next(m["content"] for m in parsed.of("meta") if "http-equiv" in m)
    assert policy.startswith("default-src 'none'")


def test_the_page_has_every_row_once_with_what_it_is_sorted_by(made, results):
    parsed = Page((made / "index.html").read_text())
    runs = rows.collect([results])
    names = [row["implementation"] for run in runs for row in run.rows]
    rivals = [name for name in names if "rival" in name]
    slopes = 2  # of each of them over T
    assert len([c for c in parsed.cells if c in ("rival", "slow rival")]) == len(rivals) + slopes
    assert "<b>absent</b>" in parsed.cells
    assert not parsed.of("b")
    assert "the package absent is not installed" in parsed.cells
    values = [float(td["data-value"]) for td in parsed.of("td") if "data-value" in td]
    medians = {row["median_s"] for run in runs for row in run.rows if "median_s" in row}
    assert all(any(math.isclose(m, v, rel_tol=1e-5) for v in values) for m in medians)
    said = " ".join(parsed.cells)
    assert "2.00x (2.00 .. 2.00)" in said
    text = (made / "index.html").read_text()
    for told in ("torch 2.13.0", "abcdef0", "2 threads on 2 cores", "float32 multiply-adds 100"):
        assert told in text


def test_series_hold_all_other_sizes_fixed(results):
    gpu = next(d for d in devices(rows.collect([results])) if d.hardware == "cuda")
    gpu_rows = [row for case in gpu.cases().values() for row in case.rows]
    found = growth.series(gpu_rows, "T", "median_s")
    assert list(found) == ["CUDA LSTM forward, tf32\nB4 I3 H5"]
    (lines,) = found.values()
    assert lines["ours"] == pytest.approx({8: 8e-5, 16: 16e-5, 32: 32e-5})
    assert growth.series(gpu_rows, "B", "median_s") == {}
    memory = growth.series(gpu_rows, "T", "peak_mib")
    assert memory["CUDA LSTM forward, tf32\nB4 I3 H5"]["rival"] == {8: 24, 16: 48, 32: 96}
    lines = growth.slopes(gpu_rows)[1:]
    slopes = {line[2]: line[-1][1] for line in lines}
    assert slopes["ours"] == pytest.approx(1)
    assert lines[0][:2] == ("CUDA LSTM forward, tf32: B4 I3 H5", "T 8 16 32")


def test_samples_are_a_batch_and_equal_weights_are_layers():
    assert growth.sizes_of({"shapes": {"samples": [8, 1000, 16]}}) == {"B": 8, "sample": "1000x16"}
    alike = {"shapes": {"weights": [[32, 32, 3, 3]] * 5}}
    assert growth.sizes_of(alike) == {"layers": 5, "weight": "32x32x3x3"}
    assert growth.sizes_of({"shapes": {"weights": [[3, 2], [2, 1]]}}) == {}
    assert growth.slope({1: 3.0, 2: 12.0, 4: 48.0}) == pytest.approx(2)


def test_least_bytes():
    shapes = {"T": 2, "B": 3, "I": 5, "H": 7}
    x, y, weights = 2 * 3 * 5, 2 * 3 * 7, 4 * 7 * (5 + 7 + 2)
    row = {"shapes": shapes, "dtype": "float32", "group": "LSTM forward"}
    assert curves.least_bytes(row) == 4 * (x + y + weights)
    row |= {"group": "LSTM forward+backward, bf16", "dtype": "bfloat16"}
    assert curves.least_bytes(row) == 2 * (2 * x + y + 2 * weights)
    row |= {"group": "LSTM WGAN-GP step", "shapes": {**shapes, "layers": 2, "directions": 2}}
    stacked = 2 * 4 * 7 * (5 + 7 + 2) + 2 * 4 * 7 * (14 + 7 + 2)
    assert curves.least_bytes(row) == 2 * (x + 2 * stacked)
    row |= {"group": "LSTM forward", "shapes": {**shapes, "lengths": [1, 2]}}
    assert curves.least_bytes(row) == 2 * (3 * 5 + 3 * 7 + weights)
    assert curves.least_bytes({"shapes": {"weights": []}}) is None


def test_short_names():
    names = ["CUDA LSTM forward, tf32", "CUDA LSTM forward+backward, tf32"]
    assert list(plotting.short_names(names).values()) == ["forward", "forward+backward"]
    names = ["spectral norm forward", "spectral norm, 3 calls"]
    assert list(plotting.short_names(names).values()) == ["forward", "3 calls"]
    assert list(plotting.short_names(["loss, a", "loss, a, b"]).values()) == ["loss, a", "b"]
    assert plotting.short_names(["LSTM forward"]) == {"LSTM forward": "LSTM forward"}


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


# ----------------------------------------------------------------------------------------- README


def test_the_readme_is_what_the_committed_results_give(capsys):
    found = report.main(["--check-readme"])
    out, err = capsys.readouterr()
    assert found == 0, out + err


@pytest.fixture
def own_readme(results, tmp_path, monkeypatch):
    """A README of the results of this test."""
    for name, path in (("README", "README.md"), ("ALL", "results/README.md"), ("ROOT", "")):
        monkeypatch.setattr(readme, name, tmp_path / path)
    monkeypatch.setattr(readme, "RESULTS", results)
    monkeypatch.setattr(readme, "PICTURES", results / "pictures")
    monkeypatch.setattr(report, "RESULTS", results)
    monkeypatch.setattr(readme.section, "__defaults__", (tmp_path,))
    readme.README.write_text(f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n")
    return tmp_path


def test_the_readme_is_written_between_its_markers(own_readme, capsys):
    assert report.main(["--check-readme"]) == 1
    assert "old" in readme.README.read_text()
    assert report.main(["--update-readme"]) == 0
    text = readme.README.read_text()
    assert text.startswith(f"before\n{readme.BEGIN}\n\n**Some CPU, AVX2, 2 threads**")
    assert text.endswith(f"\n\n{readme.END}\nafter\n")
    assert "| LSTM forward | ours | 2 | 0.50 .. **1.25x** .. 2.00 | **3.00x** |" in text
    assert "Slower than the fastest rival: LSTM forward, B8 (ours, 0.50x)." in text
    assert "(results/cpu/default.json)" in text
    assert (own_readme / "results/pictures/some-cpu-avx2-2-threads.png").exists()
    assert "| LSTM forward | B4 | ours | 1 ms |" in readme.ALL.read_text()
    capsys.readouterr()
    assert report.main(["--check-readme"]) == 0
    assert capsys.readouterr().out == ""


def test_results_that_changed_are_seen(own_readme, results, capsys):
    report.main(["--update-readme"])
    shown = readme.README.read_text()
    write(results / "cpu" / "default.json", three(1e-3, 2.5e-3, 4e-3))
    assert report.main(["--check-readme"]) == 1
    out = capsys.readouterr().out
    assert "README.md is not what the results give" in out
    assert "results/README.md is not" in out
    assert "some-cpu-avx2-2-threads.png is not a picture of the results" in out
    assert "some-gpu" not in out
    assert "**2.50x**" in out
    assert readme.README.read_text() == shown


def test_rows_without_a_run_are_told(own_readme, results):
    report.main(["--update-readme"])
    of_cpu, of_gpu = readme.README.read_text().split("**Some GPU, sm_90**")
    missing = next(line for line in of_cpu.splitlines() if line.startswith("No run on this"))
    assert "LSTM streaming" in missing
    assert "CUDA" not in missing
    assert "LSTM forward;" not in missing
    assert "CUDA LSTM forward+backward, tf32" in of_gpu
    assert "has run these yet" not in of_gpu
    (results / "gpu" / "default.json").unlink()
    report.main(["--update-readme"])
    last = readme.README.read_text().splitlines()[-4]
    assert last.startswith("**No GPU has run these yet:** ")
    assert "; CUDA LSTM forward, tf32;" in last


@pytest.mark.parametrize("available", [True, False])
def test_what_a_gpu_could_run_is_known_with_and_without_one(available, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    planned.groups.cache_clear()
    assert {"CUDA LSTM forward, tf32", "spectral norm forward"} <= set(planned.groups()["cuda"])
    assert "LSTM forward" not in planned.groups()["cuda"]


@pytest.mark.parametrize("text", ["none", "{b} {b} {e}", "{e} {b}", "{b}", "{b} {e} {e}"])
def test_a_readme_without_its_markers_is_left_alone(own_readme, text, capsys):
    text = text.format(b=readme.BEGIN, e=readme.END)
    readme.README.write_text(text)
    assert report.main(["--update-readme"]) == 2
    assert "once each and in this order" in capsys.readouterr().err
    assert readme.README.read_text() == text
    assert not readme.ALL.exists()


# ------------------------------------------------------------------------------------- comparison


def noisy(generator, rounds, ours=1e-3, rival=2e-3, spread=0.05, drift=lambda at: 1.0):
    """Times of ours and the rival, with a speed of the machine that both have in a round."""
    times = {"ours": [], "rival": []}
    for at in range(rounds):
        for name, seconds in (("ours", ours), ("rival", rival)):
            times[name].append(seconds * drift(at / rounds) * generator.lognormvariate(0, spread))
    return case(times)


def cases(content, **where):
    return rows.cases_of(rows.Run(Path("x.json"), {**ENVIRONMENT, **where}, content))


def only(old, new, threshold=0.05, **where):
    (change,) = compare.changes(cases(old), cases(new, **where), threshold)
    return change


@pytest.mark.parametrize("rounds", [5, 9, 30, 301])
def test_a_planted_slow_down_is_found_and_noise_is_not(rounds):
    generator = random.Random(rounds)

    def verdicts(planted):
        runs = ((1e-3, planted * 1e-3) for _ in range(60))
        drift = lambda at: 1 + at  # noqa: E731
        pairs = ([noisy(generator, rounds, ours=t, drift=drift) for t in times] for times in runs)
        return [only(*pair).verdict for pair in pairs]

    assert verdicts(1.0).count(compare.SAME) >= 59
    assert verdicts(1.35).count(compare.SLOWER) >= 54
    assert verdicts(1 / 1.35).count(compare.FASTER) >= 54


def test_the_direction_and_the_size_of_a_change():
    generator = random.Random(0)
    old, new = three(1e-3, 2e-3, 3e-3), three(1.3e-3, 2e-3, 3e-3)
    slower, faster = only(old, new), only(new, old)
    assert (slower.verdict, slower.before, slower.after) == (compare.SLOWER, "2.00x", "1.54x")
    assert (slower.factor, slower.own) == (pytest.approx(1.3), pytest.approx(1.3))
    assert slower.against == "rival"
    assert (faster.verdict, faster.factor) == (compare.FASTER, pytest.approx(1 / 1.3))
    small = only(noisy(generator, 300, spread=0.01), noisy(generator, 300, 1.04e-3, spread=0.01))
    assert small.verdict == compare.SAME
    assert small.factor == pytest.approx(1.04, rel=0.01)


def test_a_slower_machine_is_no_slow_down():
    generator = random.Random(1)
    new = noisy(generator, 60, drift=lambda at: 3.0)
    assert only(noisy(generator, 60), new).verdict == compare.SAME


def test_what_is_sure_and_small_beside_the_spread_is_the_same():
    generator = random.Random(7)
    change = only(*(noisy(generator, 301, ours=t, spread=0.2) for t in (1e-3, 1.15e-3)))
    assert change.verdict == compare.SAME
    assert change.factor > 1.08


def test_a_rival_that_moved_makes_nothing_of_ours_slower():
    generator = random.Random(2)
    change = only(noisy(generator, 60), noisy(generator, 60, rival=1.2e-3))
    assert change.verdict == compare.UNCLEAR
    assert change.own == pytest.approx(1, abs=0.05)


def test_a_ratio_with_two_states_is_wide():
    """A machine whose cores are near in a half of one run, and in two thirds of the other."""
    generator = random.Random(3)

    def run(near):
        states = [noisy(generator, n, rival=r) for n, r in near]
        times = {
            row["implementation"]: [t for state in states for t in state[i]["times_s"]]
            for i, row in enumerate(states[0])
        }
        return case(times)

    old = run([(150, 2e-3), (150, 1.4e-3)])
    new = run([(100, 2e-3), (200, 1.4e-3)])
    assert only(old, new).verdict == compare.SAME
    assert abs(only(old, new).factor - 1) > 0.1


def test_intervals_of_the_median():
    assert compare.interval(list(range(5))) == (0, 4)
    assert compare.interval(list(range(6))) == (0, 5)
    assert compare.interval(list(range(9))) == (1, 7)
    assert compare.interval(list(range(20))) == (5, 14)
    assert compare.blocks([1.0] * 7) == [1.0] * 7
    assert len(compare.blocks([1.0] * 301)) == compare.BLOCKS


def test_without_a_common_rival_the_ceiling_is_the_measure():
    ceilings = lambda rate: {"ceilings": {"end": {"multiply_adds": rate}}}  # noqa: E731
    generator = random.Random(4)
    old, new = ([row for row in noisy(generator, 60) if row["ours"]] for _ in range(2))
    slow = [row for row in noisy(generator, 60, ours=2e-3) if row["ours"]]
    fast_machine, slow_machine = (ceilings(rate) for rate in (100e9, 50e9))

    def verdict(new, machine):
        found = compare.changes(cases(old, **fast_machine), cases(new, **machine), 0.05)
        return found[0].verdict

    assert verdict(slow, slow_machine) == compare.SAME
    assert verdict(slow, fast_machine) == compare.SLOWER
    assert verdict(new, slow_machine) == compare.FASTER


def test_memory_and_what_is_lost():
    def peaks(*values, name="ours"):
        return case({name: list(values), "rival": [90.0]}, unit="peaks")

    assert only(peaks(10.0, 11.0), peaks(10.5, 12.0)).verdict == compare.SAME
    change = only(peaks(10.0, 11.0), peaks(12.0, 13.0))
    assert (change.verdict, change.before, change.after) == (compare.MORE, "10.5 MiB", "12.5 MiB")
    assert only(peaks(10.0), peaks(8.0)).verdict == compare.LESS
    gpu = [case({"ours": [1.0] * 9, "rival": [2.0] * 9}, device="cuda") for _ in range(2)]
    for content, mib in zip(gpu, (10.0, 20.0), strict=True):
        content[0]["peak_mib"] = mib
    found = compare.changes(*(cases(content) for content in gpu), 0.05)
    assert [(c.verdict, c.implementation) for c in found] == [
        (compare.MORE, "ours, memory"),
        (compare.SAME, "ours"),
    ]
    lost = case({"ours": "wrong answer", "rival": [2.0] * 9})
    change = only(case({"ours": [1.0] * 9, "rival": [2.0] * 9}), lost)
    assert (change.verdict, change.against) == (compare.LOST, "wrong answer")


def test_comparison_of_files(tmp_path, capsys):
    generator = random.Random(5)
    alone = three(1.0, 2.0, 3.0, shape="gone")
    old = write(tmp_path / "old.json", [*noisy(generator, 30), *alone])
    added = three(1.0, 2.0, 3.0, shape="new")
    slow = [*noisy(generator, 30, ours=1.5e-3), *added]
    new = write(tmp_path / "new.json", slow, torch="9.9.9")
    assert report.main(["--compare", str(old), str(new)]) == 0
    out = capsys.readouterr().out
    assert "1 slower" in out
    assert "they differ in torch: 2.13.0, then 9.9.9" in out
    assert "only in OLD:\n- LSTM forward: gone" in out
    assert "only in NEW:\n- LSTM forward: new" in out
    assert report.main(["--compare", str(old), str(new), "--fail"]) == 1
    assert report.main(["--compare", str(old), str(new), "--fail", "--threshold", "80"]) == 0
    assert report.main(["--compare", str(old), str(old), "--fail"]) == 0
    assert report.main(["--compare", str(new), str(old), "--fail"]) == 0  # faster
    capsys.readouterr()
    assert report.main(["--compare", str(old), str(new), "--cases", "new", "gone"]) == 0
    assert "nothing in common" in capsys.readouterr().out
    assert report.main(["--compare", str(old), str(tmp_path / "none.json")]) == 2
    assert "none.json: No such file" in capsys.readouterr().err
    bad = write(tmp_path / "bad.json", [])
    bad.write_text('{"ganlstm_fast_schema": 2}')
    assert report.main(["--compare", str(bad), str(new)]) == 2
    assert "bad.json: schema 2, expected 1" in capsys.readouterr().err


def test_of_a_folder_the_same_device_and_kind_is_compared(tmp_path, capsys):
    generator = random.Random(6)
    folder = tmp_path / "kept"
    write(folder / "a" / "full.json", noisy(generator, 30), preset="full")
    slow = noisy(generator, 30, ours=2e-3)
    write(folder / "a" / "kept-memory.json", slow, allocator="MALLOC_MMAP_MAX_=0")
    new = write(tmp_path / "quick.json", slow, preset="quick")
    command = ["--compare", str(folder), str(new), "--fail"]
    assert report.main(command) == 1
    assert "full.json" in capsys.readouterr().out
    kept = {"preset": "quick", "allocator": "MALLOC_MMAP_MAX_=0"}
    write(new, slow, **kept)
    assert report.main(command) == 0
    write(new, slow, device="Another CPU")
    assert report.main(command) == 0
    out = capsys.readouterr().out
    assert "was measured on the same device in the same way: Another CPU" in out
    (tmp_path / "empty").mkdir()
    assert report.main(["--compare", str(tmp_path / "empty"), str(new)]) == 0
    assert "nothing under" in capsys.readouterr().out


def test_a_page_without_matplotlib_says_what_it_needs(results, tmp_path, monkeypatch, capsys):
    for name in ("page", "overview", "pictures", "plotting", "curves"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert report.main([str(results), "--page", str(tmp_path / "page")]) == 2
    assert "needs matplotlib" in capsys.readouterr().err
    assert report.main([str(results), "--summary"]) == 0


def test_options_that_do_not_go_together(capsys):
    for wrong in (["--fail"], ["a.json", "--compare", "b", "c"], ["a.json", "--check-readme"]):
        with pytest.raises(SystemExit) as exit:
            report.main(wrong)
        assert exit.value.code == 2
    assert "benchmarks/results" in capsys.readouterr().err
