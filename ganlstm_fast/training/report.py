"""One HTML page of a run, with its pictures in it."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ganlstm_fast.training.checkpoint import atomic_write
from ganlstm_fast.training.configs import MODELS
from ganlstm_fast.training.devices import AUTO
from ganlstm_fast.training.errors import InputError
from ganlstm_fast.training.state import check_data
from ganlstm_fast.training.undefined import Undefined, defined, undefined_lines
from ganlstm_fast.training.using import Trained, load_trained

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLES = 400
CAPTIONS = {
    "samples.gif": "Real beside generated, as they move",
    "samples.png": "Real beside generated",
    "translations.png": "Held-out images, translated, and translated back",
    "forecasts.png": "Forecasts of the held-out rows",
    "attention.png": "Where the decoder looked for each symbol of a translation",
    "confusion.png": "Classes of the held-out sequences",
    "scores.png": "Scores of windows, the threshold, and the anomalies that were planted",
    "losses.png": "Losses and gradient norms",
}
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
       color: #1a1a1a; background: #fff }
h1 { margin-bottom: 0 } h2 { margin-top: 2.5rem }
p.what { color: #555; margin-top: .3rem }
figure { margin: 1rem 0 } img { max-width: 100%; height: auto }
figcaption { color: #555 }
.wide { overflow-x: auto }
table { border-collapse: collapse } td, th { padding: .25rem .8rem; text-align: right }
th { border-bottom: 1px solid #999 } td:first-child, th:first-child { text-align: left }
tr:nth-child(even) td { background: #f5f5f5 }
pre { background: #f5f5f5; padding: 1rem; overflow-x: auto }
"""


def write_report(run: str | Path, output: str | Path | None = None, device: str = AUTO) -> Path:
    """Write one page of a run: scores, pictures, settings; nothing else is needed to show it.

    Args:
        run: the run's folder.
        output: the file; None is ``report.html`` in the folder.

    Returns:
        The file.

    Raises:
        InputError: no run there, or a file that cannot be written.
    """
    folder = Path(run)
    if not folder.is_dir():
        raise InputError(f"{folder} is not the folder of a run")
    found = load_trained(folder, device)
    path = folder / "report.html" if output is None else Path(output)
    parts = [_head(folder, found), _scores(folder)]
    shown = [name for name in CAPTIONS if (folder / name).exists()]
    before = [name for name in shown if name != "losses.png"]
    parts += [_file(folder / name) for name in before]
    parts += _overlays(found)
    parts += [_file(folder / name) for name in shown if name not in before]
    text = folder / "samples.txt"
    if text.exists():
        lines = text.read_text(encoding="utf-8").splitlines()[:20]
        parts.append(f"<h2>Generated text</h2><pre>{escape(chr(10).join(lines))}</pre>")
    sound = folder / "samples.wav"
    if sound.exists():
        parts.append(_sound(sound))
    parts.append(_settings(found))
    page = (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(folder.resolve().name)}</title><style>{STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _head(folder: Path, found: Trained) -> str:
    steps = f"{found.content['step']} of {found.config.steps} steps"
    what = f"{found.name}: {MODELS[found.name].summary}. {steps}, seed {found.config.seed}."
    notes = "; ".join(found.data.get("notes", []))
    if notes:
        what += f" Data: {notes}."
    return f'<h1>{escape(folder.resolve().name)}</h1><p class="what">{escape(what)}</p>'


def _scores(folder: Path) -> str:
    file = folder / "metrics.json"
    if not file.exists():
        return "<p>The run has not ended: it has no scores yet.</p>"
    metrics: dict[str, Any] = json.loads(file.read_text())
    tables = {k: v for k, v in metrics.items() if isinstance(v, dict) and "generated" in v}
    kinds = list(dict.fromkeys(kind for scores in tables.values() for kind in scores))
    rows = [
        [name.replace("_", " "), *(_number(scores.get(kind)) for kind in kinds)]
        for name, scores in tables.items()
    ]
    singles = [[k.replace("_", " "), _number(v)] for k, v in metrics.items() if type(v) is float]
    singles += [[name, line] for name, line in metrics.get("told", {}).items()]
    found = [_table(["", *kinds], rows)] if rows else []
    found += [_table(["", ""], singles)] if singles else []
    if not metrics.get("reported", True):
        found.append(f"<p>No score of generated samples: {escape(metrics['reason'])}.</p>")
    said = [*undefined_lines(metrics), *metrics.get("doubts", ())]
    found += [f"<p>{escape(line[0].upper() + line[1:])}.</p>" for line in said]
    meant = [[name.replace("_", " "), line] for name, line in metrics.get("meaning", {}).items()]
    found += [_table(["", "what it is"], meant)] if meant else []
    return f"<h2>Scores</h2>{''.join(found)}" if found else ""


def _number(value: Any) -> str:
    value = value.get("score") if isinstance(value, dict) else value
    return "-" if value is None else f"{value:.4g}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    def line(cells: list[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f'<div class="wide"><table>{line(head, "th")}{body}</table></div>'


def _file(path: Path) -> str:
    return _picture(path.read_bytes(), CAPTIONS[path.name], path.suffix[1:])


def _picture(content: bytes, caption: str, kind: str = "png") -> str:
    data = base64.b64encode(content).decode()
    return (
        f"<h2>{escape(caption)}</h2><figure>"
        f'<img alt="{escape(caption)}" src="data:image/{kind};base64,{data}"></figure>'
    )


def _sound(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return (
        "<h2>Generated sounds, one after the other</h2>"
        f'<audio controls src="data:audio/wav;base64,{data}"></audio>'
    )


def _drawn(figure: Figure | Undefined, caption: str) -> str:
    if isinstance(figure, Undefined):
        return f"<h2>{escape(caption)}</h2><p>Not drawn: {escape(figure.reason)}.</p>"
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=130)
    return _picture(file.getvalue(), caption)


def _overlays(found: Trained) -> list[str]:
    """Of a GAN: real and generated samples in one picture, and their autocorrelation."""
    from ganlstm_fast.training.overlays import plot_autocorrelation, plot_overlays
    from ganlstm_fast.training.recipes.gan import GANRecipe
    from ganlstm_fast.training.recipes.series import learnt_columns

    if not issubclass(found.recipe, GANRecipe):
        return []
    try:
        recipe = found.recipe(found.config)
        check_data(recipe, found.data)
    except InputError as error:
        return [f"<p>Without a comparison: {escape(str(error))}.</p>"]
    where = next(found.model.parameters()).device
    recipe.samples = recipe.samples.to(where)
    recipe.inputs = {name: value.to(where) for name, value in recipe.inputs.items()}
    with torch.no_grad():
        real, made = (part.cpu() for part in recipe.some(found.model.generator, SAMPLES)[:2])
    if len(real) < 4:
        return []
    figures = {f"{len(real)} real and generated samples": lambda: plot_overlays(real, made)}
    if "columns" in found.data and real.shape[1] > 2:
        columns = learnt_columns(found.data)
        figures["Autocorrelation"] = lambda: plot_autocorrelation(real, made, columns)
    return [_drawn(defined(draw), caption) for caption, draw in figures.items()]


def _settings(found: Trained) -> str:
    values = [
        [field.name, str(getattr(found.config, field.name)), field.metadata["help"]]
        for field in dataclasses.fields(found.config)
    ]
    return f"<h2>Settings</h2>{_table(['', 'value', ''], values)}"
