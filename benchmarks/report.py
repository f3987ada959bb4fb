"""The hardware record: conformance and benchmarks on this GPU, kept in benchmarks/results/<device>/*.json.

`python -m benchmarks.report` (or `make gpu-report`) needs no network and uses the Python it is started with. Parts can
be run alone (`--only conformance`, `--only ops`) and ops one by one (`--op rms_norm`); a part whose record is already
there for this commit is skipped unless `--again`. Exit codes: 0 done, 1 conformance failed, 3 no GPU.
"""

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch

import wan_kernels  # noqa: F401  (fills the registry)
from wan_kernels import benchmark, dispatch, machine, records
from wan_kernels.define_op import OPS

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results"
EXIT_FAILED, EXIT_NO_GPU = 1, 3
PARTS = ("conformance", "ops")
CASE_ID = re.compile(r"test_conforms\[(?P<op>\w+)-.*-(?P<backend>\w+)-(?P<dtype>\w+)\]")


def main() -> int:
    options = arguments()
    if not torch.cuda.is_available():
        print("[gpu-report] a CUDA device must be present, torch sees none; run it on a machine with a GPU")
        return EXIT_NO_GPU
    folder = RESULTS / re.sub(r"\W+", "_", machine.device_name("cuda"))
    folder.mkdir(parents=True, exist_ok=True)
    ops = options.op or sorted(OPS)
    is_green = True
    if "conformance" in options.only:
        is_green = run_part(folder / "conformance.json", options.again, conformance)
        note_proven(json.loads((folder / "conformance.json").read_text()))
    if "ops" in options.only:
        for op in ops:
            run_part(folder / f"ops_{op}.json", options.again, lambda op=op: {"rows": measured(op, options.budget)})
    return 0 if is_green else EXIT_FAILED


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS, action="append", help="this part; all where not given")
    parser.add_argument("--op", choices=sorted(OPS), action="append", help="benchmark this op; all where not given")
    parser.add_argument("--again", action="store_true", help="also run what is already recorded for this commit")
    parser.add_argument("--budget", type=float, default=2.0, help="seconds for each group of benchmark rows")
    options = parser.parse_args()
    options.only = options.only or list(PARTS)
    return options


def run_part(path: Path, again: bool, work: Any) -> bool:
    """Run one part and write its record; True if nothing in it failed."""
    before = json.loads(path.read_text()) if path.exists() else {}
    commit = machine.commit()
    is_current = (
        commit is not None and not commit.endswith("+") and before.get("environment", {}).get("commit") == commit
    )
    if is_current and not again:
        print(f"{path.name}: already recorded for {commit}")
        return not before.get("failures")
    facts = {"environment": machine.environment("cuda"), "date": today()} | work()
    facts["environment_after"] = machine.environment("cuda")
    facts["sources"] = sources()
    benchmark.write_json(path, facts)
    print(f"wrote {path.relative_to(ROOT)}")
    return not facts.get("failures")


def today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def sources() -> dict[str, str]:
    """Source hash of every backend of every op."""
    return {f"{op}/{name}": records.source_hash(op, name) for op in dispatch.ops() for name in dispatch.names(op)}


def measured(op: str, budget_s: float) -> list[dict[str, Any]]:
    rows = list(benchmark.measure([op], device="cuda", budget_s=budget_s))
    print(benchmark.table(rows))
    where = machine.stamp("cuda")
    return [asdict(row) | where for row in rows]


def conformance() -> dict[str, Any]:
    """The suite in a process of its own: a kernel that breaks the context must not take the benchmarks along."""
    with tempfile.TemporaryDirectory() as folder:
        xml = Path(folder) / "conformance.xml"
        command = [sys.executable, "-m", "pytest", "tests/ops/test_conformance.py", "--device", "cuda", "-q"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        subprocess.run([*command, f"--junitxml={xml}"], cwd=ROOT, env=environment, check=False)
        if not xml.exists():
            return {"passed": {}, "failures": ["the suite did not finish"]}
        return summary_of(ElementTree.parse(xml).getroot())


def summary_of(suite: ElementTree.Element) -> dict[str, Any]:
    """Cases passed for each `op/backend`, and the first line of every failure."""
    passed: dict[str, int] = {}
    failures = []
    for case in suite.iter("testcase"):
        name = case.get("name", "")
        broken = case.find("failure") if case.find("failure") is not None else case.find("error")
        if broken is not None:
            failures.append(f"{name}: {(broken.get('message') or '').splitlines()[0] if broken.get('message') else ''}")
        elif case.find("skipped") is None and (match := CASE_ID.fullmatch(name)):
            key = f"{match['op']}/{match['backend']}"
            passed[key] = passed.get(key, 0) + 1
    return {"passed": passed, "failures": failures}


def note_proven(record: dict[str, Any]) -> None:
    """Write down, for dispatch, which GPU backends passed every case in the source they have now."""
    proven = dict(records.proven())
    failed = {f"{match['op']}/{match['backend']}" for line in record["failures"] if (match := CASE_ID.match(line))}
    for key in record["passed"]:
        if not key.endswith(("/cuda", "/triton")):
            continue
        if key in failed:
            proven.pop(key, None)
        else:
            device = record["environment"]["device"]
            proven[key] = {"source": record["sources"][key], "device": device, "date": record["date"]}
    benchmark.write_json(records.PROVEN, proven)


if __name__ == "__main__":
    sys.exit(main())
