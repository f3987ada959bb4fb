"""Static inspection: what each GPU kernel compiles to for sm_90a. Needs no GPU.

Every launch that the heavy cases lead to on a `triton` backend, forward and backward, and every csrc/ops/*/*_sm90.cu,
is compiled; ptxas tells registers, spills and whether it serialised matrix instructions, the disassembly which
instructions are there. Each launch carries what it expects; a row is ok where that holds. Hopper's limits per
multiprocessor are from the CUDA programming guide's table of compute capability 9.0; bounds take the H200's dense peaks
and are those of the forward.
"""

import importlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from wan_kernels import dispatch, records, testing
from wan_kernels.common.case import Case
from wan_kernels.common.cuda import ROWS, Block
from wan_kernels.common.triton import Expectation, Launch, is_aligned, missing
from wan_kernels.define_op import OPS

MNEMONICS = ("HGMMA", "QGMMA", "IGMMA", "UTMALDG", "LDGSTS", "MUFU", "SHFL", "PRMT", "STL")
BYTES_PER_US = 4.8e6
FLOPS_PER_US = {1: 1979e6, 2: 989.5e6, 4: 989.5e6}  # by bytes of a factor; nothing multiplies float32 on tensor cores
REGISTERS_PER_SM, WARPS_PER_SM, CTAS_PER_SM, SHARED_BYTES_PER_SM = 65536, 64, 32, 228 * 1024
SHARED_BYTES_PER_CTA = 1024  # what the system keeps of each program's
TYPES = {
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.int8: "i8",
    torch.float8_e4m3fn: "fp8e4nv",
    torch.int32: "i32",
    torch.int64: "i64",
}


@dataclass(frozen=True)
class Compiled:
    """What one kernel compiled to, or why it did not."""

    registers: int = 0
    spill_bytes: int = 0
    shared_bytes: int = 0
    warps: int = 0
    serialised: int = 0
    mnemonics: tuple[tuple[str, int], ...] = ()
    failure: str | None = None

    @property
    def ctas_per_sm(self) -> int:
        """Programs that fit a multiprocessor together: registers come in units of 8 a thread."""
        if not self.warps:
            return 0
        by_registers = REGISTERS_PER_SM // (32 * 8 * -(-max(self.registers, 1) // 8)) // self.warps
        by_shared = SHARED_BYTES_PER_SM // (self.shared_bytes + SHARED_BYTES_PER_CTA)
        return min(by_registers, by_shared, WARPS_PER_SM // self.warps, CTAS_PER_SM)


@dataclass(frozen=True)
class Row:
    """One kernel of one case. bound_us: the least time of the forward on an H200, from its FLOPs and bytes."""

    op: str
    backend: str
    case: str
    kernel: str
    config: str
    registers: int
    spill_bytes: int
    shared_bytes: int
    warps: int
    ctas_per_sm: int
    serialised: int
    mnemonics: dict[str, int]
    bound_us: float | None
    ok: bool
    reason: str | None

    @property
    def key(self) -> str:
        return f"{self.op}/{self.backend}/{self.case}/{self.kernel}"


@dataclass(frozen=True)
class Work:
    """A launch to inspect, for the case that leads to it."""

    op: str
    case: Case
    launch: Launch
    bound_us: float

    @property
    def specification(self) -> str:
        return json.dumps(specification(self.launch), sort_keys=True)


def inspect(ops: Sequence[str] | None = None, *, is_brief: bool = False) -> tuple[list[Row], list[str]]:
    """A row per kernel and case, and what was left out and why. is_brief: each Triton kernel once per op only.

    Raises ValueError for an op that does not exist.
    """
    unknown = sorted(set(ops or ()) - set(OPS))
    if unknown:
        raise ValueError(f"[inspect] op must be one of {', '.join(sorted(OPS))}, got {', '.join(unknown)}")
    chosen = sorted(ops or OPS)
    skipped = []
    rows = []
    if (reason := missing()) is not None:
        skipped.append(f"triton: {reason}")
    else:
        todo = [work for op in chosen for work in work_of(op)]
        rows += triton_rows(first_of_each_kernel(todo) if is_brief else todo)
    sources = [(op, path) for op in chosen for path in sorted((records.SOURCES / "ops" / op).glob("*_sm90.cu"))]
    if (reason := cuda_missing()) is not None:
        skipped += [f"{op}/cuda: {reason}" for op, _ in sources]
    else:
        rows += [cuda_row(op, path) for op, path in sources]
    return rows, skipped


def work_of(op: str) -> list[Work]:
    """The launches of the op's heavy cases with bfloat16 activations, on fake tensors; none without a backend."""
    if "triton" not in dispatch.names(op):
        return []
    backend = importlib.import_module(f"wan_kernels.ops.{op}.backend_triton")
    work = []
    for case in testing.cases_of(op):
        if not case.is_heavy:
            continue
        meta = case.args(torch.bfloat16, "meta")
        cost = OPS[op].cost(*meta)
        bound_us = max(cost.flops / FLOPS_PER_US[meta[0].element_size()], cost.num_bytes / BYTES_PER_US)
        with FakeTensorMode():
            args = [on_gpu(value) for value in meta]
            if backend.reject(*args) is None:
                work += [Work(op, case, launch, round(bound_us, 1)) for launch in launches_of(backend, op, args)]
    return work


def launches_of(backend: ModuleType, op: str, args: Sequence[Any]) -> list[Launch]:
    """What a call launches, forward and then, where the backend has one, backward for every gradient there can be; of
    launches that compile to the same, the first.
    """
    outputs, launches = backend.prepare(*args)
    if hasattr(backend, "prepare_backward"):
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        grads = tuple(map(torch.empty_like, outputs))
        slots = zip(OPS[op].tensor_slots, OPS[op].differentiable, strict=True)
        needed = tuple(is_differentiable and args[slot] is not None for slot, is_differentiable in slots)
        launches = launches + backend.prepare_backward(grads, tuple(args), outputs, needed)[1]
    by_specification = {json.dumps(specification(launch), sort_keys=True): launch for launch in reversed(launches)}
    return list(reversed(by_specification.values()))


def on_gpu(value: Any) -> Any:
    """Inside a fake mode: a fake CUDA tensor like a meta one; as dispatch.explain makes them."""
    if not isinstance(value, Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="cuda")


def first_of_each_kernel(todo: Iterable[Work]) -> list[Work]:
    return list({(work.op, work.launch.kernel): work for work in reversed(list(todo))}.values())


def specification(launch: Launch) -> dict[str, Any]:
    """The launch as Triton's compiler sees it: types, constants, what is known of alignment.

    None and 1 become constants, whole multiples of 16 are told: what Triton's own launcher specialises on.
    """
    signature, constants, aligned = {}, dict(launch.constants), []
    for name, value in launch.args.items():
        if value is None or (isinstance(value, int) and value == 1):
            constants[name] = value
            continue
        signature[name] = type_of(value)
        if is_multiple_of_16(value):
            aligned.append(name)
    options = {"num_warps": launch.num_warps, "num_stages": launch.num_stages, **launch.options}
    return {
        "module": launch.module,
        "kernel": launch.kernel,
        "signature": signature,
        "constants": constants,
        "aligned": aligned,
        "options": options,
    }


def is_multiple_of_16(value: Any) -> bool:
    """Whether a tensor's address or an integer is."""
    return is_aligned(value) if isinstance(value, Tensor) else isinstance(value, int) and value % 16 == 0


def type_of(value: Any) -> str:
    """An argument's type in Triton's notation."""
    if isinstance(value, Tensor):
        return f"*{TYPES[value.dtype]}"
    if hasattr(value, "block_shape"):
        return f"tensordesc<{TYPES[value.base.dtype]}{list(value.block_shape)}>".replace(" ", "")
    if isinstance(value, float):
        return "fp32"
    return "i32" if -(2**31) <= value < 2**31 else "i64"


def triton_rows(todo: Sequence[Work]) -> list[Row]:
    """Compiles each distinct specification once, as many at a time as there are processors."""
    distinct = list(dict.fromkeys(work.specification for work in todo))
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        compiled = dict(zip(distinct, pool.map(compile_triton, distinct), strict=True))
    return [
        row_of(
            (work.op, "triton", work.case.name, work.launch.kernel, config_of(work.launch)),
            compiled[work.specification],
            work.launch.expects,
            work.bound_us,
        )
        for work in todo
    ]


def config_of(launch: Launch) -> str:
    """What distinguishes the launch, for people: its sizes, switches and warps."""
    words = [f"{name}={value}" for name, value in launch.constants.items() if value not in (None, False)]
    return ", ".join([*words, f"warps={launch.num_warps}", f"stages={launch.num_stages}"])


def row_of(
    names: tuple[str, str, str, str, str], compiled: Compiled, expects: Expectation, bound_us: float | None
) -> Row:
    found = compiled.failure or "; ".join(complaints(compiled, expects)) or None
    return Row(
        *names,
        compiled.registers,
        compiled.spill_bytes,
        compiled.shared_bytes,
        compiled.warps,
        compiled.ctas_per_sm,
        compiled.serialised,
        dict(compiled.mnemonics),
        bound_us,
        ok=found is None,
        reason=found,
    )


def complaints(compiled: Compiled, expects: Expectation) -> list[str]:
    """Where a kernel falls short of what it was designed for."""
    counts = dict(compiled.mnemonics)
    wrong = []
    if compiled.registers > expects.max_registers:
        wrong.append(f"{compiled.registers} registers, at most {expects.max_registers}")
    if expects.is_hot and (compiled.spill_bytes or counts["STL"]):
        wrong.append(f"spills {compiled.spill_bytes} bytes")
    if compiled.ctas_per_sm < expects.min_ctas_per_sm:
        wrong.append(f"{compiled.ctas_per_sm} programs per multiprocessor, at least {expects.min_ctas_per_sm}")
    if compiled.serialised:
        wrong.append("matrix instructions wait for each other")
    wrong += [f"no {name}" for name in expects.mnemonics if not counts[name]]
    wrong += [f"{counts[name]} {name}" for name in expects.forbidden if counts[name]]
    wrong += [f"{counts[name]} {name}, at most {most}" for name, most in expects.limits if counts[name] > most]
    return wrong


def compile_triton(text: str) -> Compiled:
    """Compile a specification (JSON) in a child process and read what came of it."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "wan_kernels.compile_triton", folder]
        child = subprocess.run(command, input=text, capture_output=True, text=True, env=environment)
        if child.returncode:
            return Compiled(failure=f"does not compile ({child.returncode}): {last_line(child.stderr)}")
        metadata = json.loads(Path(folder, "metadata.json").read_text())
        assembled = subprocess.run(
            [tool("ptxas"), "-v", "-arch=sm_90a", f"{folder}/kernel.ptx", "-o", f"{folder}/again.cubin"],
            capture_output=True,
            text=True,
        )
        if assembled.returncode:
            return Compiled(failure=f"does not assemble: {last_line(assembled.stderr)}")
        counts = count_mnemonics(Path(folder, "kernel.cubin"))
        return read_log(assembled.stderr, counts, metadata["num_warps"], metadata["shared_bytes"])


def read_log(log: str, counts: dict[str, int], warps: int, shared_bytes: int = 0) -> Compiled:
    """What `ptxas -v` says of a file's kernels: the worst of each, the sum of spills."""
    return Compiled(
        registers=max(map(int, re.findall(r"Used (\d+) registers", log))),
        spill_bytes=sum(map(int, re.findall(r"(\d+) bytes spill stores", log))),
        shared_bytes=max([shared_bytes, *map(int, re.findall(r"(\d+) bytes smem", log))]),
        warps=warps,
        serialised=len(re.findall(r"\(C751[0-8]\)", log)),
        mnemonics=tuple(counts.items()),
    )


def count_mnemonics(cubin: Path) -> dict[str, int]:
    listing = subprocess.run([tool("cuobjdump"), "-sass", str(cubin)], capture_output=True, text=True, check=True)
    return {name: len(re.findall(rf"\b{name}\b", listing.stdout)) for name in MNEMONICS}


def cuda_missing() -> str | None:
    """Why the CUDA sources cannot be inspected here, or None."""
    if shutil.which("nvcc") is None:
        return "nvcc is not on the PATH"
    return missing() and "cuobjdump comes with triton, which is missing"


def block_of(op: str) -> Block:
    """What the op's CUDA kernel is held to: BLOCK of its backend, or the rows of elementwise kernels."""
    backend = importlib.import_module(f"wan_kernels.ops.{op}.backend_cuda")
    return getattr(backend, "BLOCK", ROWS)


def cuda_row(op: str, source: Path) -> Row:
    """One row for all kernels of a CUDA source: they are templates of one."""
    block = block_of(op)
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder, "out.cubin")
        command = ["nvcc", "-std=c++17", "-O3", "-gencode=arch=compute_90a,code=sm_90a", "-Xptxas=-v", "-cubin"]
        command += [f"-I{records.SOURCES}", f"-I{records.SOURCES / 'include'}", "-o", str(cubin), str(source)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            compiled = Compiled(failure=f"does not compile: {last_line(done.stderr)}")
        else:
            compiled = read_log(done.stderr, count_mnemonics(cubin), block.num_warps, block.shared_bytes)
        num_kernels = done.stderr.count("Used ")
    names = (op, "cuda", "every", source.stem, f"{num_kernels} kernels, the worst of each")
    return row_of(names, compiled, block.expects, None)


def tool(name: str) -> str:
    """A tool that comes with Triton."""
    import triton

    return str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name)


def last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"


def report(rows: Iterable[Row], skipped: Sequence[str]) -> dict[str, Any]:
    """As JSON: rows in order, what was left out, and by which compilers."""
    found = importlib.metadata.version("triton") if missing() is None else None
    return {"triton": found, "nvcc": nvcc_version(), "rows": [asdict(row) for row in rows], "skipped": list(skipped)}


def nvcc_version() -> str | None:
    if shutil.which("nvcc") is None:
        return None
    said = subprocess.run(["nvcc", "--version"], capture_output=True, text=True).stdout
    found = re.search(r"release ([\d.]+)", said)
    return found and found[1]


def load(path: Path) -> list[Row]:
    """The rows of a report. Raises ValueError where the file is none."""
    try:
        return [Row(**row) for row in json.loads(path.read_text())["rows"]]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"[inspect] baseline must be a file of wan kernels inspect --json, {path} is not") from error


def differences(rows: Iterable[Row], baseline: Iterable[Row]) -> list[str]:
    """A line for each figure of a row that is not the baseline's, and for rows that the baseline lacks."""
    before = {row.key: figures(row) for row in baseline}
    lines = []
    for row in rows:
        if row.key not in before:
            lines.append(f"{row.key}: new")
            continue
        old, new = before[row.key], figures(row)
        lines += [f"{row.key}: {name} {old.get(name)} -> {new[name]}" for name in new if new[name] != old.get(name)]
    return lines


def figures(row: Row) -> dict[str, Any]:
    """Everything a row tells but its names, instructions one by one."""
    told = asdict(row)
    return {name: told[name] for name in told if name not in ("op", "backend", "case", "kernel", "mnemonics")} | {
        **row.mnemonics
    }
