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
    lines, shares = [], []
    of_trained: dict[str, float] = {}
    # Of the scores, in how many the trained generator is nearer to real text than another stage.
    better = dict.fromkeys(titles, 0)
    for name in names:
        score = trained["scores"][name]
        values = {stage["title"]: stage["scores"][name]["generated"] for stage in found}
        shown = {"noise": score["noise"], **values}
        shown |= {"shuffled words": score["shuffled"], "real": score["real"]}
        title = name.replace("_", " ")
        lines.append({"score": title} | {of: f"{value:.3f}" for of, value in shown.items()})
        if name != COPIED:
            ways = {stage: way(score, value) for stage, value in values.items()}
            of_trained[title] = mine = ways["trained"]
            for stage, share in ways.items():
                better[stage] += abs(mine - 1) < abs(share - 1)
            line = {"share of the way from noise to real": title}
            shares.append(line | {stage: f"{100 * share:.0f}%" for stage, share in ways.items()})
    nearer = [name for name, share in of_trained.items() if abs(share - 1) < 0.5]
    beyond = [name for name, share in of_trained.items() if share > 1]
    made = [
        {"stage": s["title"], "command": f"`{s['command']}`", "seconds": f"{s['seconds']:.0f}"}
        for s in found
    ]
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
        markdown_table(made),
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
