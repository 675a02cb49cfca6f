"""The README's two tables: four figures, and six rows of measurements with wins and losses."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.report.devices import devices
from benchmarks.report.rows import Row, Run
from benchmarks.report.tables import Line, markdown_table, spread

CPU, GPU = "AMD EPYC (family 25, model 1), AVX2, 2 threads", "NVIDIA H100 80GB HBM3, sm_90"
SHORT = {CPU: "EPYC, AVX2, 2 threads", GPU: "H100"}
LSTM, ON_GPU, PACKED = "B32 T128 I64 H128", "B64 T128 I64 H128", "B64 T200 I128 H128"
RESNET, SERIES = "SNGAN-ResNet-128 discriminator", "256x24x28"
AUTO, STEP = "FastLSTM, auto", "spectral_norm_step"

# What, device, and of its row the group, the case and the implementation.
FIGURES = (
    ("WGAN-GP step of an LSTM critic", GPU, "CUDA LSTM WGAN-GP critic step, tf32", ON_GPU, AUTO),
    ("WGAN-GP penalty of an LSTM critic", CPU, "LSTM WGAN-GP step", LSTM, "FastLSTM"),
    (
        "LSTM of a padded batch, forward and backward",
        CPU,
        "LSTM packed, forward+backward",
        f"{PACKED}, lengths 1..200",
        "FastLSTM, lengths",
    ),
    (
        "spectral norm of a discriminator, forward and backward",
        CPU,
        "spectral norm forward+backward",
        RESNET,
        STEP,
    ),
)
ORDERS = ("forward", "forward+backward", "second order")
# What, device, case, implementation, and the groups of ``ORDERS``.
MEASUREMENTS = (
    (
        *("LSTM, float32", CPU, LSTM, "FastLSTM"),
        ("LSTM forward", "LSTM forward+backward", "LSTM WGAN-GP step"),
    ),
    *(
        (
            *(f"LSTM, {name}", GPU, ON_GPU, AUTO),
            [f"CUDA LSTM {work}, {of}" for work in (*ORDERS[:2], "WGAN-GP critic step")],
        )
        for name, of in (("TF32", "tf32"), ("bfloat16", "bf16"))
    ),
    (
        *("spectral norm", CPU, RESNET, STEP),
        ("spectral norm forward", "spectral norm forward+backward", None),
    ),
    (
        *("penalty", CPU, SERIES, "penalty"),
        (None, "penalty, value and gradient", "penalty, value and both gradients"),
    ),
    ("interpolate", CPU, SERIES, "interpolate", ("interpolate", None, None)),
)


def _row(runs: Sequence[Run], device: str, group: str | None, case: str, name: str) -> Row | None:
    """The newest row of that name with a ratio; one that was refused as wrong has none."""
    cases = next((d.cases() for d in devices(runs) if d.name == device), {})
    rows = [row for key, found in cases.items() if key[:2] == (group, case) for row in found.rows]
    return next((r for r in rows if r["implementation"] == name and "ratio" in r), None)


def figures(runs: Sequence[Run]) -> str:
    """What is how many times faster than the fastest rival, and the command that measures it."""
    lines: list[Line] = [("what", "times faster than", "device", "command")]
    for what, device, group, case, name in FIGURES:
        row = _row(runs, device, group, case, name)
        if row is not None:
            ratio = f"**{row['ratio']:.{0 if row['ratio'] >= 10 else 1}f}x** {row['rival']}"
            command = f'`pytest benchmarks --benchmark-only --cases "{group}"`'
            lines.append((f"{what} ({case})", ratio, SHORT[device], command))
    return markdown_table(lines)


def measurements(runs: Sequence[Run]) -> str:
    """Ratios to the fastest rival with the middle 60% of the rounds, at each order."""
    lines: list[Line] = [("op", "device", *ORDERS)]
    for what, device, case, name, groups in MEASUREMENTS:
        rows = [_row(runs, device, group, case, name) for group in groups]
        if any(rows):
            cells = ("-" if r is None else f"{r['ratio']:.2f}x{spread(r, 'ratio')}" for r in rows)
            lines.append((f"{what}, {case}", SHORT[device], *cells))
    return markdown_table(lines)
