"""What has become slower or faster from one result file to another."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.report import compare, rows
from benchmarks.report.__main__ import main
from tests.benchmarks.made_results import ENVIRONMENT, case, three, write


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
    assert main(["--compare", str(old), str(new)]) == 0
    out = capsys.readouterr().out
    assert "1 slower" in out
    assert "they differ in torch: 2.13.0, then 9.9.9" in out
    assert "only in OLD:\n- LSTM forward: gone" in out
    assert "only in NEW:\n- LSTM forward: new" in out
    assert main(["--compare", str(old), str(new), "--fail"]) == 1
    assert main(["--compare", str(old), str(new), "--fail", "--threshold", "80"]) == 0
    assert main(["--compare", str(old), str(old), "--fail"]) == 0
    assert main(["--compare", str(new), str(old), "--fail"]) == 0  # faster
    capsys.readouterr()
    assert main(["--compare", str(old), str(new), "--cases", "new", "gone"]) == 0
    assert "nothing in common" in capsys.readouterr().out
    assert main(["--compare", str(old), str(tmp_path / "none.json")]) == 2
    assert "none.json: No such file" in capsys.readouterr().err
    bad = write(tmp_path / "bad.json", [])
    bad.write_text('{"ganlstm_fast_schema": 2}')
    assert main(["--compare", str(bad), str(new)]) == 2
    assert "bad.json: schema 2, expected 1" in capsys.readouterr().err


def test_of_a_folder_the_same_device_and_kind_is_compared(tmp_path, capsys):
    generator = random.Random(6)
    folder = tmp_path / "kept"
    write(folder / "a" / "full.json", noisy(generator, 30), preset="full")
    slow = noisy(generator, 30, ours=2e-3)
    write(folder / "a" / "kept-memory.json", slow, allocator="MALLOC_MMAP_MAX_=0")
    new = write(tmp_path / "quick.json", slow, preset="quick")
    command = ["--compare", str(folder), str(new), "--fail"]
    assert main(command) == 1
    assert "full.json" in capsys.readouterr().out
    kept = {"preset": "quick", "allocator": "MALLOC_MMAP_MAX_=0"}
    write(new, slow, **kept)
    assert main(command) == 0
    write(new, slow, device="Another CPU")
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "was measured on the same device in the same way: Another CPU" in out
    (tmp_path / "empty").mkdir()
    assert main(["--compare", str(tmp_path / "empty"), str(new)]) == 0
    assert "nothing in OLD" in capsys.readouterr().out
