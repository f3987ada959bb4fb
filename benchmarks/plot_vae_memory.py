"""Peak memory of the streamed VAE against the length of the video, from a record of bench_vae, as a picture.

python -m benchmarks.plot_vae_memory benchmarks/results/epyc-zen4-2core/vae_frames.json docs/images/vae_memory.png
"""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=Path)
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    rows = json.loads(options.record.read_text())["rows"]
    figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
    for direction in ("encode", "decode"):
        chosen = [row for row in rows if row["direction"] == direction]
        axes.plot(
            [row["num_frames"] for row in chosen], [row["peak_bytes"] / 1e9 for row in chosen], "o-", label=direction
        )
    axes.set(xlabel="frames", ylabel="peak memory, GB", ylim=(0, 1.2 * max(row["peak_bytes"] for row in rows) / 1e9))
    axes.set_title(f"{rows[0]['model']}, {rows[0]['precision']}, {rows[0]['width']} x {rows[0]['height']}", fontsize=10)
    axes.legend()
    figure.savefig(options.picture, dpi=150)


if __name__ == "__main__":
    main()
