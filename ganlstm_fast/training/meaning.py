"""What scores mean, in a line each, for those who read them."""

from __future__ import annotations

import re
from typing import Any

from ganlstm_fast.training.config import Settings

# Runs with fewer steps than this share of the default get a note that they are short.
FEW = 1 / 5

# By a score's whole name. A line ends with what is best: higher, lower, or near real data's value.
_MEANINGS = {
    r"discriminative_score": "how far beyond chance a judge trained for it tells these from real "
    "data: 0 is best, 0.5 is always",
    r"predictive_score": "error of forecasts of real data by a network trained on these: near that "
    "of real data is best",
    r"mmd_squared": "distance of these from the data, all values of a sample at once: near that of "
    "real data is best",
    r"marginal_wasserstein": "distance of the values at each step from the data's, in its range: "
    "near that of real data is best",
    r"diversity": "how evenly these spread over the real samples: 0 is one sample over and over, "
    "near that of real data is best",
    r"autocorrelation_error": "how far their autocorrelation is from the data's: near "
    "that of real data is best",
    r"inception_score": "how clearly a classifier of real images sees one class in each, and all "
    "in turn: higher is better",
    r"class_entropy": "how evenly the classes occur: near that of real data is best",
    r"frechet_distance": "distance of what a classifier sees in these from what it sees in real "
    "images: lower is better",
    r"variety": "how different two of these for one text, note or place are: near that of real "
    "data is best",
    r"digit_agreement": "share in which a classifier reads the digit that the text names: higher "
    "is better",
    r"(slant|weight)_agreement": r"correlation of the \1 that is measured with what the text says: "
    "higher is better",
    r"speed": "of what moves, in pixels a frame: near that of real data is best",
    r"turn": "between two steps, in degrees: near that of real data is best",
    r"(speed|turn)_distance": r"of the \1s from the data's: lower is better",
    r"straight_on": "share of steps that go on as the one before: near that of real data is best",
    r"condition_error": "how far the months or histories asked for are missed: lower is better",
    r"area_under_roc": "chance that a planted anomaly scores above a usual window: 1 is best, "
    "0.5 is chance",
    r"threshold": "score above which a window is flagged: by default 1 in 100 of the held-out "
    "windows without planted anomalies (threshold_quantile)",
    r"anomalies_found": "share of the planted anomalies with a flagged window: 1 is best",
    r"precision": "share of the flagged windows that have a planted anomaly: 1 is best",
    r"recall": "share of the windows with a planted anomaly that are flagged: 1 is best",
    r"accuracy": "share of held-out samples that are classified correctly: higher is better",
    r"accuracy_of_most_frequent_class": "what always naming the most frequent class would get",
    r"accuracy_of_symbol_frequencies": "what counting symbols would get",
    r"cross_entropy": "surprise at the right class, in nats: lower is better",
    r"exact_match(_greedy)?": "share of held-out texts that are translated without an error: "
    "higher is better",
    r"right_symbols(_greedy)?": "share of symbols in the right place: higher is better",
    r"(exact_match|right_symbols)_of_nearest_text": "what the translation of the most similar "
    "training text would get",
    r"entropy_of_(\d)_grams": r"of groups of \1 symbols, in bits: near that of real data is best",
    r"distance_of_(\d)_grams": r"how far the frequencies of groups of \1 symbols are from real "
    "text's, from 0 to 1: near that of real data is best",
    r"overlap_of_(\d)_grams": r"share of its groups of \1 symbols that held-out text has: near "
    "that of real data is best",
    r"coverage_of_(\d)_grams": r"share of held-out text's groups of \1 symbols that it has: near "
    "that of real data is best",
    r"self_overlap_of_(\d)_grams": r"share of its groups of \1 symbols that another sample has "
    "too: above that of real data it repeats itself",
    r"copied_(\d+)_grams": r"share of its groups of \1 symbols that the training text has: above "
    "that of real data it was learnt by heart",
    r"known_words": "share of its words that the training text has: near that of real data is best",
    r"language_model": "how surprised a network that has read real text is by it, in nats a "
    "symbol: near that of real data is best",
    r"reverse_language_model": "how surprised a network that has read it is by real text: near "
    "that of real data is best",
    r"in_tune": "share of sounds within 20 cents of a note that is known: near that of real data "
    "is best",
    r"notes_heard": "share of the notes that occur: 1 is best",
    r"note_as_asked": "share of sounds that have the note that was asked for: higher is better",
    r"spectral_distance": "distance of their spectra from those of real sounds: lower is better",
    r"length_distance": "of their lengths from those of real sounds, in seconds: lower is better",
    r"style_(\w)_to_(\w)": r"share of images of kind \1 that a classifier takes for kind \2 once "
    "they are translated: higher is better",
    r"recognised_(\w)_to_(\w)": r"share of images of kind \1 whose class a classifier of real "
    r"images of kind \2 recognises once they are translated: higher is better",
    r"slant_(\w)_to_(\w)": r"how far images of kind \1 lean once translated: near that of real "
    r"images of kind \2 is best",
    r"cycle_error_(\w)": r"mean difference of an image of kind \1 and what comes back of it, there "
    "and back, of 2 at most: lower is better",
    r"skill": "error below that of a simple forecast, as a share of it: 1 is best, below 0 is "
    "worse than it",
    r"pinball_skill": "the same of the quantiles",
}


def meaning_of(name: str) -> str | None:
    """The line for a score, or None."""
    for pattern, words in _MEANINGS.items():
        found = re.fullmatch(pattern, name)
        if found is not None:
            return found.expand(words)
    return None


def meanings(metrics: dict[str, Any]) -> dict[str, str]:
    """The lines for the scores in ``metrics``, by name."""
    found = {name: meaning_of(name) for name in metrics}
    if isinstance(metrics.get("skill"), dict):  # The line names what the skill is measured against.
        simple = "a simple forecast"
        names = "; ".join(metrics["skill"])
        found["skill"] = str(found["skill"]).replace(simple, f"{simple} ({names})")
    return {name: line for name, line in found.items() if line is not None}


def few_steps(config: Settings) -> list[str]:
    """A line where a run has so few steps that its scores and pictures show little."""
    usual = type(config).steps
    if config.steps >= FEW * usual:
        return []
    count = "1 step is" if config.steps == 1 else f"{config.steps} steps are"
    return [f"{count} few: the default is {usual}, and after so few a model has learnt little"]


def doubts(metrics: dict[str, Any]) -> list[str]:
    """Doubts about the scores: names a judge that cannot tell noise from real data."""
    scores = metrics.get("discriminative_score")
    if not isinstance(scores, dict):  # this run has none, or it has no value
        return []
    noise, real = (_value(scores.get(kind)) for kind in ("noise", "real"))
    if noise is None or real is None or noise - real >= 0.25:
        return []
    return [
        f"noise has a discriminative score of {noise:.2f}, and real data {real:.2f}: this judge "
        "cannot tell your data from noise; try longer windows, or more data"
    ]


def _value(score: Any) -> float | None:
    return score.get("score") if isinstance(score, dict) else score
