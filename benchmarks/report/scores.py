"""The table of whole trainings and their scores, of the files that ``benchmarks.scores`` writes."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report.rows import RESULTS
from benchmarks.report.tables import Line, markdown_table

FOLDER = RESULTS / "scores"
SCHEMA = 1

# The scores that the table shows, and their names in it.
FIGURES = {
    "discriminative_score.generated.score": "discriminative score",
    "discriminative_score.real.score": "of real against real",
    "predictive_score.generated.score": "predictive score",
    "predictive_score.real.score": "of real data",
    "discriminative_score.generated": "discriminative score",
    "discriminative_score.real": "of real against real",
    "speed_distance.generated": "distance of speeds from the data's, pixels a frame",
    "speed_distance.real": "of held-out videos",
    "speed_distance.shuffled": "of shuffled frames",
    "distance_of_3_grams.generated": "distance of groups of 3 symbols",
    "distance_of_3_grams.real": "of real text",
    "distance_of_3_grams.noise": "of noise",
    "known_words.generated": "known words",
    "known_words.real": "of real text",
    "known_words.noise": "of noise",
    "self_overlap_of_4_grams.generated": "groups of 4 symbols in another sample",
    "self_overlap_of_4_grams.real": "of real text",
    "self_overlap_of_4_grams.noise": "of noise",
    "language_model.generated": "nats a symbol by a language model of real text",
    "language_model.real": "of real text",
    "language_model.noise": "of noise",
    "reverse_language_model.generated": "of real text by one of the samples",
    "reverse_language_model.real": "by one of real text",
    "reverse_language_model.noise": "by one of noise",
    "turn.generated": "turn between steps, degrees",
    "turn.real": "of held-out videos",
    "turn.shuffled": "of shuffled frames",
    "variety.generated": "variety",
    "variety.real": "of real data",
    "in_tune.generated": "sounds within 20 cents of the scale",
    "in_tune.real": "of held-out sounds",
    "in_tune.noise": "of noise",
    "note_as_asked": "of the note that was asked for",
    "notes_heard.generated": "notes of the scale that are heard",
    "spectral_distance.generated": "spectral distance, dB^2",
    "spectral_distance.real": "of held-out sounds",
    "spectral_distance.noise": "of noise",
    "length_distance.generated": "distance of lengths from the data's, seconds",
    "length_distance.real": "of held-out sounds",
    "length_distance.noise": "of noise",
    "area_under_roc.total.all": "area under the ROC curve",
    "skill.same as yesterday.mean": "skill against yesterday",
    "skill.same day last year.mean": "skill against last year",
    "accuracy": "accuracy",
    "accuracy_of_symbol_frequencies": "of counting symbols",
    "accuracy_of_most_frequent_class": "of the most frequent class",
    "exact_match": "exact translations",
    "exact_match_greedy": "without beams",
    "right_symbols": "right symbols",
    "right_symbols_of_nearest_text": "of the most similar text",
    "recognised_a_to_b.generated": "digits recognised, a to b",
    "recognised_a_to_b.untranslated": "untranslated",
    "recognised_a_to_b.real": "of real b",
    "recognised_b_to_a.generated": "digits recognised, b to a",
    "recognised_b_to_a.untranslated": "untranslated",
    "recognised_b_to_a.real": "of real a",
    "style_a_to_b.generated": "taken for b, a to b",
    "style_a_to_b.untranslated": "untranslated",
    "style_b_to_a.generated": "taken for a, b to a",
    "style_b_to_a.untranslated": "untranslated",
    "slant_a_to_b.generated": "slant, a to b",
    "slant_a_to_b.untranslated": "untranslated",
    "slant_a_to_b.real": "of real b",
    "slant_b_to_a.generated": "slant, b to a",
    "cycle_error_a": "mean difference of a and its way back, of 2",
    "cycle_error_b": "of b",
    "digit_agreement.generated": "digits as the text says",
    "digit_agreement.shuffled": "with another text",
    "slant_agreement.generated": "correlation of slant",
    "weight_agreement.generated": "of weight",
}


def flat(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of nested dictionaries by their path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield name, float(value)


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json"), key=lambda path: path.stem)


def read(folder: Path) -> list[dict[str, Any]]:
    """The kept results; one of another schema is named on stderr and left out."""
    found = []
    for path in files(folder):
        result = json.loads(path.read_text())
        if result.get("schema") == SCHEMA:
            found.append(result | {"name": path.stem})
        else:
            print(f"{path}: schema {result.get('schema')}, expected {SCHEMA}", file=sys.stderr)
    return found


def _spread(values: Sequence[float], digits: int) -> str:
    mean = f"{statistics.fmean(values):.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ({min(values):.{digits}f} .. {max(values):.{digits}f})"


def table(results: Sequence[dict[str, Any]]) -> str:
    """Markdown: a row for each figure of each result, the mean over the seeds with least and most.

    Where some seeds did not report a score, the table says how many did.
    """
    lines: list[Line] = []
    for result in results:
        seeds = result["seeds"]
        scores = [dict(flat(seed["scores"])) for seed in seeds]
        seconds = _spread([seed["train_seconds"] for seed in seeds], 0)
        impl = "" if result["impl"] is None else f"GANLSTM_FAST_IMPL={result['impl']} "
        first = (f"`{impl}{result['command']}`", f"{seconds}, {result['jobs']} at a time")
        for path, figure in FIGURES.items():
            values = [s[path] for s in scores if path in s]
            if values:
                spread = _spread(values, 3)
                spread += f" of {len(values)} seeds" if len(values) > 1 else ""
                spread += "" if len(values) == len(seeds) else f", {len(values)} of {len(seeds)}"
                line = dict(zip(("trained by", "seconds"), first, strict=True))
                lines.append(line | {"figure": figure, "mean (least .. most)": spread})
                first = ("", "")
    return markdown_table(lines)
