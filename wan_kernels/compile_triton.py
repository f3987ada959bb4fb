"""Compiles one Triton kernel for sm_90a in a process of its own, where a compiler pass that aborts ends nothing else.

Reads a specification as JSON from standard input and leaves kernel.ptx, kernel.cubin and metadata.json in the
directory named as the only argument. Needs neither GPU nor driver; TRITON_INTERPRET must not be set.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any


def compile_kernel(specification: dict[str, Any], directory: Path) -> None:
    """specification: module, kernel, signature {name: type}, constants, aligned [name], options."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(importlib.import_module(specification["module"]), specification["kernel"])
    signature = {name: specification["signature"].get(name, "constexpr") for name in kernel.arg_names}
    attributes = {(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in specification["aligned"]}
    source = ASTSource(fn=kernel, signature=signature, constexprs=specification["constants"], attrs=attributes)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=specification["options"])
    (directory / "kernel.ptx").write_text(compiled.asm["ptx"])
    (directory / "kernel.cubin").write_bytes(compiled.asm["cubin"])
    metadata = {"shared_bytes": compiled.metadata.shared, "num_warps": compiled.metadata.num_warps}
    (directory / "metadata.json").write_text(json.dumps(metadata))


if __name__ == "__main__":
    compile_kernel(json.load(sys.stdin), Path(sys.argv[1]))
