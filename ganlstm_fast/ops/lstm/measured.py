"""Which implementation of the LSTM was the fastest on a GPU.

Written by ``python -m benchmarks.choices`` from benchmarks/results, and not by hand.
"""

from __future__ import annotations

# H, and the implementations: at first order the fastest, at second order all, the fastest first.
Measured = list[tuple[int, tuple[str, ...]]]

# By compute capability: devices, the folders of their results, and the files there.
SOURCES: dict[tuple[int, int], tuple[tuple[str, str, tuple[str, ...]], ...]] = {
    (9, 0): (
        (
            "NVIDIA H100 80GB HBM3",
            "benchmarks/results/nvidia-h100-80gb-hbm3-sm-90",
            ("default.json", "eager-and-graph.json"),
        ),
    ),
}

# By compute capability, then by numbers and work.
FASTEST: dict[tuple[int, int], dict[tuple[str, str], Measured]] = {
    (9, 0): {
        ("tf32", "forward"): [
            (24, ("torch",)),
            (64, ("torch",)),
            (128, ("torch",)),
            (256, ("cuda",)),
            (384, ("cuda",)),
            (512, ("cuda",)),
        ],
        ("tf32", "forward+backward"): [
            (24, ("torch",)),
            (64, ("torch",)),
            (128, ("torch",)),
            (256, ("cuda",)),
            (384, ("cuda",)),
            (512, ("cuda",)),
        ],
        ("tf32", "second order"): [
            (24, ("cuda", "triton", "cell")),
            (64, ("cuda",)),
            (128, ("cuda", "cell")),
            (512, ("cuda", "cell")),
        ],
        ("float32", "forward"): [
            (128, ("torch",)),
            (256, ("cuda",)),
        ],
        ("float32", "forward+backward"): [
            (128, ("torch",)),
            (256, ("cuda",)),
        ],
        ("float16", "forward"): [
            (768, ("torch",)),
        ],
        ("float16", "forward+backward"): [
            (768, ("torch",)),
        ],
        ("float16", "second order"): [
            (768, ("cuda", "cell")),
        ],
        ("bfloat16", "forward"): [
            (64, ("cuda",)),
            (128, ("cuda",)),
            (256, ("cuda",)),
        ],
        ("bfloat16", "forward+backward"): [
            (128, ("cuda",)),
            (256, ("cuda",)),
        ],
        ("bfloat16", "second order"): [
            (128, ("cuda", "triton", "cell")),
            (256, ("cuda", "cell")),
        ],
    },
}
