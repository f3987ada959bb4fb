"""Draws the loss curves of training logs.

python -m benchmarks.plot_training docs/training/tiny_vae.jsonl docs/training/tiny_dit.jsonl -o docs/images/training.png
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SMOOTHING = 5


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def smooth(values: list[float]) -> list[float]:
    return [
        sum(values[max(0, i - SMOOTHING) : i + 1]) / len(values[max(0, i - SMOOTHING) : i + 1])
        for i in range(len(values))
    ]


def draw(axis: plt.Axes, path: Path) -> None:
    """Training loss over minutes of training on the left axis, what validation measures on the right."""
    lines = read(path)
    steps = [line for line in lines if "loss" in line]
    axis.semilogy([line["elapsed_s"] / 60 for line in steps], smooth([line["loss"] for line in steps]), label="loss")
    axis.set(title=path.stem, xlabel="minutes", ylabel="training loss")
    checks = [line for line in lines if "event" in line]
    figures = [name for name in ("psnr", "psnr_things", "validation") if any(name in line for line in checks)]
    twin = axis.twinx()
    for name in figures:
        twin.plot([line["elapsed_s"] / 60 for line in checks], [line[name] for line in checks], "o--", label=name)
    twin.set_ylabel(", ".join(figures))
    twin.legend(loc="upper right")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    figure, axes = plt.subplots(1, len(options.logs), figsize=(6 * len(options.logs), 4), squeeze=False)
    for axis, path in zip(axes[0], options.logs, strict=True):
        draw(axis, path)
    figure.tight_layout()
    figure.savefig(options.output, dpi=100)


if __name__ == "__main__":
    main()
