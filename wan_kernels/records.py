"""Hardware records: which GPU kernels have passed on a GPU, in the very source that is here.

`make gpu-report` runs the conformance suite on a GPU and notes each backend that passed in proven.json with a hash of
its source. A kernel that has changed since, or never ran, is experimental: it runs when forced, never by default.
"""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent
SOURCES = PACKAGE.parent / "csrc"
PROVEN = PACKAGE / "proven.json"


def source_files(op: str, backend: str) -> list[Path]:
    """What a backend of an op is made of: its file in the room, its kernels, and what they share."""
    patterns = {"cuda": ("*.cu", "*_cuda.*"), "cpu": ("*.cpp", "*_cpu.*")}.get(backend, ())
    shared = {"cuda": "common/cuda", "cpu": "common/cpu"}.get(backend)
    files = [PACKAGE / "ops" / op / f"backend_{backend}.py"]
    if backend == "triton":
        files += [PACKAGE / "ops" / op / "kernels_triton.py", *(PACKAGE / "common").glob("triton*.py")]
    files += [path for pattern in patterns for path in (SOURCES / "ops" / op).glob(pattern)]
    files += (SOURCES / shared).rglob("*") if shared else ()
    return sorted(path for path in files if path.is_file())


def source_hash(op: str, backend: str) -> str:
    """SHA-256 over the names and contents of the backend's sources, 16 digits."""
    digest = hashlib.sha256()
    for path in source_files(op, backend):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@cache
def proven() -> dict[str, Any]:
    """The records: `op/backend` -> source hash, device, date."""
    return json.loads(PROVEN.read_text()) if PROVEN.exists() else {}


def unproven(op: str, backend: str) -> str | None:
    """Why the backend is experimental, or None if its current source has passed on hardware."""
    record = proven().get(f"{op}/{backend}")
    if record is None:
        return "experimental: no hardware record; force it to run it"
    if not SOURCES.is_dir():
        return "experimental: its source is not here to compare with the hardware record; force it to run it"
    if record["source"] != source_hash(op, backend):
        return f"experimental: its source changed since it passed on {record['device']}; force it to run it"
    return None
