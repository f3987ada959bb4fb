"""`wan plan`: the table of ops, their cost, and who would run them."""

from typing import get_args

from wan_model.cli import print_json
from wan_model.config import get_preset
from wan_model.plan import DeviceName, Plan, Row, make_plan
from wan_model.tables import print_table, si

COLUMNS = ("op", "calls", "shape", "FLOP", "bytes", "share", "backend", "why")
NUMBERS = ("calls", "FLOP", "bytes", "share")


def run(model: str, size: tuple[int, int] | None, num_frames: int | None, device: str | None, as_json: bool) -> None:
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device not in get_args(DeviceName):
        raise ValueError(f"[device] must be one of {', '.join(get_args(DeviceName))}, got {device!r}")
    plan = make_plan(get_preset(model), size=size, num_frames=num_frames, device=device)  # type: ignore[arg-type]
    if as_json:
        print_json(plan.as_json())
    else:
        print_plan(plan)


def print_plan(plan: Plan) -> None:
    width, height = plan.size
    print(f"{plan.model}, {width}x{height}, {plan.num_frames} frames, {plan.device}, weights in {plan.dtype}")
    for remark in plan.remarks:
        print(f"note: {remark}")
    print(f"{plan.num_tokens:,} tokens, {si(plan.forward_flops, 'FLOP')} per forward\n")
    print_table("One forward of the DiT, one video", COLUMNS, table_rows(plan.forward), right=NUMBERS)
    if plan.decode:
        rows = table_rows(merge_shapes(plan.decode))
        print_table("Decoding with the VAE, one latent frame at a time", COLUMNS, rows, right=NUMBERS)
    print_table("In all", ("what", "amount"), summary(plan), right=("amount",))


def merge_shapes(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """One row per op and backend: the VAE has dozens of shapes, which --json lists."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.op, row.backend, row.why), []).append(row)
    return tuple(
        Row(
            op=op,
            shape=group[0].shape if len(group) == 1 else f"{len(group)} shapes",
            num_calls=sum(row.num_calls for row in group),
            flops=sum(row.flops for row in group),
            num_bytes=sum(row.num_bytes for row in group),
            backend=backend,
            why=why,
        )
        for (op, backend, why), group in groups.items()
    )


def table_rows(rows: tuple[Row, ...]) -> list[list[object]]:
    """The costly first; shares are of the FLOPs of this pass."""
    total = sum(row.flops for row in rows) or 1
    ordered = sorted(rows, key=lambda row: (row.flops, row.num_bytes), reverse=True)
    return [
        [
            row.op, row.num_calls, row.shape, si(row.flops, "F") if row.flops else "-", si(row.num_bytes, "B"),
            f"{100 * row.flops / total:.1f} %", row.backend, row.why,
        ]
        for row in ordered
    ]  # fmt: skip


def summary(plan: Plan) -> list[tuple[str, str]]:
    memory = plan.memory
    return [
        ("tokens", f"{plan.num_tokens:,}"),
        ("forwards (default steps and guidance)", str(plan.num_forwards)),
        ("FLOPs per forward", si(plan.forward_flops, "FLOP")),
        ("FLOPs of all forwards", si(plan.num_forwards * plan.forward_flops, "FLOP")),
        ("FLOPs of decoding", si(plan.decode_flops, "FLOP")),
        ("weights, DiT", si(memory.dit_bytes, "B")),
        ("weights, text encoder", si(memory.text_bytes, "B")),
        ("weights, VAE (float32)", si(memory.vae_bytes, "B")),
        ("activations of a forward, at least", si(memory.forward_peak_bytes, "B")),
        ("activations of decoding whole frames, at least", si(memory.decode_peak_bytes, "B")),
        ("memory, everything resident, at least", si(memory.total_bytes, "B")),
    ]
