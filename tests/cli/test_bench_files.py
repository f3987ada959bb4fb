"""`wan bench compare` and `wan bench report`: what they make of files, and what they refuse."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from wan_model.commands import bench_compare, bench_report


def row(backend: str, ms: float, **changed: Any) -> dict[str, Any]:
    is_copy = backend == "clone"
    name = {"op": "rms_norm", "case": "wide", "dtype": "fp32", "direction": "fwd", "backend": backend}
    times = {"num_runs": 9, "ms_median": ms, "ms_p10": 0.9 * ms, "ms_p90": 1.1 * ms}
    rates = {"flops": None if is_copy else 400, "gbps": 1 / ms, "tflops": None if is_copy else 4e-4 / ms}
    bound = {"num_bytes": 1000, "bound": "memory", "bound_fraction": 0.5, "error_max": None, "sqnr_db": None}
    where = {"device": "CPU X", "clocks": None, "power": None, "versions": {"torch": "2.13"}, "commit": "abc"}
    return {"name": "/".join(name.values()), **name, **times, **rates, **bound, "reason": None, **where, **changed}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text(json.dumps(rows))
    return path


def test_slower_rows_fail_and_noise_does_not(tmp_path, capsys) -> None:
    old = write(tmp_path / "old.json", row("cpu", 1.0), row("reference", 4.0), row("clone", 1.0))
    same = write(tmp_path / "same.json", row("cpu", 1.1), row("reference", 3.0), row("clone", 1.0))
    slow = write(tmp_path / "slow.json", row("cpu", 1.5), row("reference", 4.0), row("sdpa", 4.0))
    assert bench_compare.run(old, same, "5%") == 0
    assert "within the noise" in capsys.readouterr().out
    assert bench_compare.run(old, slow, "5%") == 1
    out = capsys.readouterr().out
    assert re.search(r"rms_norm/wide/fp32/fwd/cpu +1\.0000 +1\.5000 +\+50\.0 % +SLOWER", out)
    assert "1 of 2 rows slower by more than 5 %" in out
    assert bench_compare.run(old, slow, "60") == 0


@pytest.mark.parametrize(
    ("new", "fail_over", "message"),
    [
        ([row("cpu", 1.0, device="CPU Y")], "5%", "figures must come from one kind of device, got CPU X and CPU Y"),
        ([row("sdpa", 1.0)], "5%", "must have rows of the same name, got none in both"),
        ([row("cpu", 1.0)], "five", "--fail-over must be a percentage such as 5%, got 'five'"),
        ([{"a": 1}], "5%", "must hold rows of `wan bench ops --json`"),
    ],
)
def test_compare_refuses(tmp_path, new, fail_over, message) -> None:
    old = write(tmp_path / "old.json", row("cpu", 1.0))
    with pytest.raises(ValueError, match=re.escape(message)):
        bench_compare.run(old, write(tmp_path / "new.json", *new), fail_over)


class Page(HTMLParser):
    """Counts elements, and notes whatever a page would fetch from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_page_holds_everything_itself(tmp_path) -> None:
    rows = [row("cpu", 1.0), row("reference", 4.0), row("compiled", 2.0), row("clone", 0.8)]
    refused = row("sdpa", 1.0, ms_median=None, reason="takes <no> empty tensors")
    files = [write(tmp_path / "a.json", *rows, refused), write(tmp_path / "b.json", row("triton", 1.0, device="GPU"))]
    output = tmp_path / "page.html"
    bench_report.run(files, output)
    text = output.read_text()
    page = Page()
    page.feed(text)
    assert page.fetched == []
    assert page.counts["table"] == 2 and page.counts["svg"] == 1 and page.counts["circle"] == 3
    assert "4.00× <small>" in text and "2.00× <small>torch.compile" in text  # eager, then the best rival
    assert "takes &lt;no&gt; empty tensors" in text
    assert text.count("<h2>") == 2


def test_report_leaves_nothing_half_written(tmp_path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("[{")
    with pytest.raises(ValueError, match="must hold rows"):
        bench_report.run([broken], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
