"""What docs/text-gan.md shows of the file that ``benchmarks.text_stages`` writes."""

from __future__ import annotations

from typing import Any

from benchmarks.report.rows import RESULTS, ROOT
from benchmarks.report.tables import markdown_table

FILE = RESULTS / "text-gan" / "stages.json"
# Noise and real text both score 0 here, so that no share of the way between them can be given.
COPIED = "copied_16_grams"


def way(score: dict[str, float], generated: float) -> float:
    """How far ``generated`` is on the way from noise, 0, to real text, 1."""
    return (generated - score["noise"]) / (score["real"] - score["noise"])


def section(result: dict[str, Any]) -> str:
    """What docs/text-gan.md shows between its markers."""
    found = result["stages"]
    trained = next(stage for stage in found if stage["title"] == "trained")
    titles = [stage["title"] for stage in found]
    names = [n for n, v in trained["scores"].items() if isinstance(v, dict) and "noise" in v]
    lines: list[tuple[str, ...]] = [("score", "noise", *titles, "shuffled words", "real")]
    shares: list[tuple[str, ...]] = [("share of the way from noise to real", *titles)]
    of_trained: dict[str, float] = {}
    # Of the scores, in how many the trained generator is nearer to real text than another stage.
    better = dict.fromkeys(titles, 0)
    for name in names:
        score = trained["scores"][name]
        values = [stage["scores"][name]["generated"] for stage in found]
        shown = (score["noise"], *values, score["shuffled"], score["real"])
        lines.append((name.replace("_", " "), *(f"{value:.3f}" for value in shown)))
        if name != COPIED:
            ways = [way(score, value) for value in values]
            of_trained[name] = mine = ways[titles.index("trained")]
            for title, share in zip(titles, ways, strict=True):
                better[title] += abs(mine - 1) < abs(share - 1)
            shares.append((name.replace("_", " "), *(f"{100 * share:.0f}%" for share in ways)))
    nearer = [name for name, share in of_trained.items() if abs(share - 1) < 0.5]
    beyond = [name.replace("_", " ") for name, share in of_trained.items() if share > 1]
    parts = [
        f"Of {len(of_trained)} scores of the trained generator, {len(nearer)} are nearer to those "
        "of real text than to those of noise"
        + (f"; beyond those of real text: {', '.join(beyond)}." if beyond else "."),
        "It is nearer to real text than the other stages are in: "
        + ", ".join(f"{title} {count}" for title, count in better.items() if title != "trained")
        + f" of {len(of_trained)} scores.",
        markdown_table(shares),
        "The scores themselves:",
        markdown_table(lines),
        "How each was made, from nothing and with seed 0, on one thread:",
        markdown_table(
            [
                ("stage", "command", "seconds"),
                *((s["title"], f"`{s['command']}`", f"{s['seconds']:.0f}") for s in found),
            ]
        ),
        "What they write, unselected (line ends are spaces):",
    ]
    for title, texts in (
        ("noise", result["beside"]["noise"]),
        *((stage["title"], stage["samples"]) for stage in found),
        ("shuffled words", result["beside"]["shuffled"]),
        ("real, held out", result["beside"]["real"]),
    ):
        parts.append(f"*{title}*\n\n```text\n" + "\n".join(texts) + "\n```")
    e = result["environment"]
    parts.append(
        f"From [stages.json](../{FILE.relative_to(ROOT).as_posix()}), made by "
        f"`python -m benchmarks.text_stages` on {e['device']}, torch {e['torch']}, {e['commit']}."
    )
    return "\n\n".join(parts)
