"""The `wan` command. Everything heavy is imported inside the command that needs it, so that help answers at once."""

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

import wan_model
from wan_model.cli_options import DeviceOption, FramesOption, JsonFlag, ModelOption, SizeOption, TileOption
from wan_model.cli_vae import vae_app

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130

app = typer.Typer(
    help="Videos from text with the Wan models, on kernels of our own.",
    epilog='Start with: wan generate "a red circle moves right over a blue background" -o out.mp4',
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
kernels_app = typer.Typer(help="What the kernel library holds.", no_args_is_help=True)
bench_app = typer.Typer(help="Measure.", no_args_is_help=True)
app.add_typer(kernels_app, name="kernels")
app.add_typer(bench_app, name="bench")
app.add_typer(vae_app, name="vae")


def show_version(asked: bool) -> None:
    if asked:
        print(f"wan {wan_model.__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Videos from text with the Wan models, on kernels of our own."""


@app.command()
def generate(
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT...", help="What should be seen; one video each.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help=".mp4, .gif or .png; out.mp4 otherwise, out.png for an image.")
    ] = None,
    model: ModelOption = "tiny",
    preset: Annotated[str | None, typer.Option(help="Which model DIR holds, where its files do not say.")] = None,
    negative: Annotated[str | None, typer.Option(help="What should not be seen.")] = None,
    seed: Annotated[int, typer.Option(help="Prompt number i gets seed + i, counting from 0.")] = 0,
    size: SizeOption = None,
    frames: FramesOption = None,
    fps: Annotated[int | None, typer.Option(help="Frames per second of the file.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    shift: Annotated[float | None, typer.Option(help="Above 1: more steps on noisy levels.")] = None,
    guidance: Annotated[float | None, typer.Option(help="1: follow the prompt freely, and twice as fast.")] = None,
    solver: Annotated[str, typer.Option(help="unipc, dpm++ or euler.")] = "unipc",
    device: DeviceOption = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32, bf16, int8 or fp8; fp32 on a CPU and bf16 on a GPU otherwise.")
    ] = None,
    layers: Annotated[bool, typer.Option(help="First print what each layer runs in 8 bits, and its error.")] = False,
    noise_device: Annotated[str, typer.Option(help="Whose generator draws the noise: cpu (portable) or cuda.")] = "cpu",
    tile: TileOption = "auto",
    preview: Annotated[bool, typer.Option(help="Keep NAME.preview.png up to date while sampling.")] = False,
) -> None:
    """Make a video, with a contact sheet and its settings beside it.

    \b
    wan generate "a red circle moves right over a blue background" -o out.mp4
    wan generate "a green square" --frames 1 -o square.png
    wan generate "a blue square moves up over a white background" --precision int8 --layers
    wan generate "a cat boxing" "a dog reading" --model Wan2.1-T2V-1.3B --steps 30 --seed 7 -o pets.mp4
    """
    from wan_model.commands.generate import run

    run(
        prompts, output, model=model, preset=preset, device=device, precision=precision, show_layers=layers,
        show_preview=preview, tile=tile,
        options={
            "negative_prompts": negative, "seed": seed, "size": parse_size(size), "num_frames": frames, "fps": fps,
            "num_steps": steps, "shift": shift, "guidance_scale": guidance, "solver": solver,
            "noise_device": noise_device,
        },
    )  # fmt: skip


@app.command()
def plan(
    model: Annotated[str, typer.Option("--model", help="A preset: tiny, 1.3B, 14B, ...")] = "tiny",
    size: SizeOption = None,
    frames: FramesOption = None,
    device: Annotated[str | None, typer.Option("--device", help="Whose kernels: cpu or cuda, here or not.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Print what a model would compute, on which kernels and why, and what memory it needs. Computes nothing.

    \b
    wan plan --model 14B --size 1280x720 --frames 81
    wan plan --model 1.3B --device cuda --json
    """
    from wan_model.commands.plan import run

    run(model, parse_size(size), frames, device, as_json)


@app.command()
def doctor(as_json: JsonFlag = False) -> None:
    """Print versions, processor, GPU, memory, which backends work and why not, and which models fit."""
    from wan_model import doctor as checks

    if as_json:
        print_json(checks.report())
    else:
        checks.print_report()


@kernels_app.command("list")
def kernels_list(as_json: JsonFlag = False) -> None:
    """Print every op, every backend, and the reason for every hole."""
    from wan_model import doctor as checks

    if as_json:
        print_json(checks.backends())
    else:
        checks.print_backends()


@kernels_app.command("inspect")
def kernels_inspect(
    op: Annotated[str | None, typer.Option(help="Ops, with commas between; all otherwise.")] = None,
    json_path: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write the rows here.")] = None,
    baseline: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Print what differs from a file that --json wrote.")
    ] = None,
) -> None:
    """Compile the GPU kernels for sm_90a and print registers, spills and instructions. Needs no GPU.

    Exits with 1 where a kernel is not what it was designed to be.

    \b
    wan kernels inspect --op linear_8bit
    wan kernels inspect --baseline benchmarks/results/inspect_sm90.json
    """
    from wan_model.commands.inspect import run

    if not run(split(op), json_path, baseline):
        raise typer.Exit(1)


@bench_app.command("ops")
def bench_ops(
    op: Annotated[str | None, typer.Option(help="Ops, with commas between.")] = None,
    backend: Annotated[
        str | None, typer.Option(help="Backends; also compiled, torch.compile of the reference.")
    ] = None,
    case: Annotated[str | None, typer.Option(help="Cases by name; the large ones otherwise.")] = None,
    dtype: Annotated[str | None, typer.Option(help="fp32, bf16.")] = None,
    direction: Annotated[str | None, typer.Option(help="fwd, bwd.")] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu or cuda; cuda where there is one and cpu is no rival.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="For one op, case, dtype and direction.")] = 2.0,
    json_path: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write figures here.")] = None,
    ncu: Annotated[
        bool, typer.Option("--ncu", help="Run one call for a profiler; one op, backend, case, dtype, direction.")
    ] = False,
) -> None:
    """Measure ops on several backends, interleaved, on the same inputs, beside a plain copy of as many bytes.

    Whatever is not chosen is measured whole.

    \b
    wan bench ops --backend cpu,reference --json ops.json
    wan bench ops --op rms_norm,gate_residual --dtype fp32 --direction fwd
    ncu --profile-from-start off wan bench ops --ncu --op rms_norm --backend cuda \\
        --case 720p_81f_14B --dtype bf16 --direction fwd
    """
    from wan_model.commands.bench import run, run_once

    choices = {
        "ops": split(op),
        "backends": split(backend),
        "cases": split(case),
        "dtypes": split(dtype),
        "directions": split(direction),
    }
    if ncu:
        run_once(device, **choices)
    else:
        run(json_path, device=device, budget_s=seconds, **choices)


@bench_app.command("attention")
def bench_attention(
    tokens: Annotated[str | None, typer.Option(help="Of made-up inputs; 7800, on a GPU also 32760 and 75600.")] = None,
    heads: Annotated[int | None, typer.Option(help="Of made-up inputs; 40 on a GPU, 1 on a CPU otherwise.")] = None,
    head_width: Annotated[int, typer.Option(help="Of made-up inputs.")] = 128,
    inputs: Annotated[
        str | None, typer.Option("--input", help="random, outlier, video, or files of wan capture; the first three.")
    ] = None,
    backend: Annotated[str | None, typer.Option(help="As the table names them, or the part before a dot.")] = None,
    device: DeviceOption = None,
    seconds: Annotated[float, typer.Option(help="For each backend and input; three runs at least.")] = 2.0,
    json_path: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write figures here.")] = None,
) -> None:
    """Measure attention, in 8 bits and not, ours and others', on the same inputs: error against float64, and speed.

    Exits with 1 where a backend is further off than its inputs allow; it gets no times then.

    \b
    wan bench attention --tokens 7800,32760 --heads 2 --input video --json attention.json
    wan bench attention --input qkv.safetensors --backend attention_8bit,torch
    """
    from wan_model.commands.bench_attention import run

    failed = run(
        json_path, tokens=tokens, num_heads=heads, head_width=head_width, inputs=split(inputs),
        backends=split(backend), device=device, budget_s=seconds,
    )  # fmt: skip
    raise typer.Exit(failed)


@bench_app.command("compare")
def bench_compare(
    old: Annotated[Path, typer.Argument(help="A file of `wan bench ops --json`.")],
    new: Annotated[Path, typer.Argument(help="Another, of the same device.")],
    fail_over: Annotated[str, typer.Option(help="How much slower a row may be.")] = "5%",
) -> None:
    """Compare two files row by row; exit code 1 if a row is clearly slower than allowed.

    Clearly: the middle four fifths of its runs do not overlap with those before.

    \b
    wan bench compare before.json after.json --fail-over 5%
    """
    from wan_model.commands.bench_compare import run

    raise typer.Exit(run(old, new, fail_over))


@bench_app.command("report")
def bench_report(
    files: Annotated[list[Path], typer.Argument(help="Files of `wan bench ops --json`, or hardware records.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The page.")] = Path("bench.html"),
) -> None:
    """Make one self-contained HTML page of benchmark files: roofline, ratios, tables.

    \b
    wan bench report ops.json -o bench.html
    """
    from wan_model.commands.bench_report import run

    run(files, output)


@app.command()
def capture(
    output: Annotated[Path, typer.Option("-o", "--output", help="A .safetensors file.")],
    prompt: Annotated[
        str, typer.Option(help="What should be seen.")
    ] = "a red circle moves right over a blue background",
    model: ModelOption = "tiny",
    layers: Annotated[str | None, typer.Option(help="From 0, commas between; all otherwise.")] = None,
    steps: Annotated[str, typer.Option(help="Which denoising steps, from 0, commas between.")] = "0",
    num_steps: Annotated[int | None, typer.Option(help="How many there would be.")] = None,
    seed: int = 0,
    size: SizeOption = None,
    frames: FramesOption = None,
    device: DeviceOption = None,
    precision: Annotated[str | None, typer.Option(help="fp32 or bf16.")] = None,
) -> None:
    """Write q, k and v of attention, self and cross, as layers of a model have them in steps of one generation.

    \b
    wan capture --layers 0,3 --steps 0,10 -o qkv.safetensors
    wan bench attention --input qkv.safetensors
    """
    from wan_model.commands.capture import run

    options = {"num_steps": num_steps, "seed": seed, "size": parse_size(size), "num_frames": frames}
    run(
        output, prompt=prompt, model=model, layers=layers, steps=steps, device=device, precision=precision,
        options=options,
    )  # fmt: skip


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A file under recipes/.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="State and log; runs/RECIPE otherwise.")] = None,
    model: Annotated[
        Path | None, typer.Option(help="Where to export, and a DiT finds its VAE; runs/PRESET otherwise.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the state in the output directory, if any.")] = True,
) -> None:
    """Train as a recipe says. Ctrl-C saves; the same command goes on.

    \b
    wan train recipes/tiny_vae.toml
    wan train recipes/tiny_dit.toml
    wan generate "a red circle moves right over a blue background" --model runs/tiny
    """
    if not recipe.is_file():
        raise FileNotFoundError(f"[train] recipe must be a file, got {recipe}; see recipes/")
    from wan_model.training.loop import train as run

    print(run(recipe, output, resume=resume, assets=model))


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A checkpoint directory, official or Diffusers.")],
    target: Annotated[Path, typer.Argument(help="A directory that does not exist yet.")],
    to: Annotated[str, typer.Option("--to", help="Layout to write: official or diffusers.")] = "official",
) -> None:
    """Rewrite a checkpoint in the other layout.

    \b
    wan convert Wan2.1-T2V-1.3B Wan2.1-T2V-1.3B-diffusers --to diffusers
    """
    from wan_model.commands.convert import run

    run(source, target, to)


def split(names: str | None) -> list[str] | None:
    """`a,b` to [a, b]; None stays None: no choice was made."""
    return None if names is None else [name.strip() for name in names.split(",") if name.strip()]


def parse_size(text: str | None) -> tuple[int, int] | None:
    """`832x480` (or 832*480, as the official scripts write it) to (832, 480)."""
    if text is None:
        return None
    width, _, height = text.lower().replace("*", "x").partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise ValueError(f"[size] must be WIDTHxHEIGHT in pixels, got {text!r}; for example 832x480")
    return int(width), int(height)


def print_json(data: Any) -> None:
    import json

    print(json.dumps(data, indent=2, ensure_ascii=False))


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; turns what went wrong into one line and an exit code. WAN_DEBUG=1 shows where it happened."""
    # A polite kill unwinds like Ctrl-C, so that temporary files are removed.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        # Some versions of typer answer Ctrl-C with this exit code, others let the exception through.
        if (code := app(arguments, standalone_mode=False) or 0) == EXIT_INTERRUPTED:
            raise KeyboardInterrupt
        return code
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough; point stdout elsewhere so that the exit does not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        line = one_line(error)
        if line is None or os.environ.get("WAN_DEBUG"):
            raise
        print(f"error: {line}", file=sys.stderr)
        return EXIT_BAD_INPUT


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def one_line(error: Exception) -> str | None:
    """What to tell the user; None for an error that is a bug of ours and deserves its traceback."""
    if hasattr(error, "format_message"):
        return f"{error.format_message()} See wan --help."
    is_expected = isinstance(error, (ValueError, TypeError, OSError, MemoryError)) or type(error).__name__ in FORESEEN
    if not is_expected and not (isinstance(error, RuntimeError) and str(error).startswith("[")):
        return None
    return " ".join(line.strip() for line in str(error).splitlines()) or type(error).__name__


# Named, not imported: torch and safetensors are heavy.
FORESEEN = ("OutOfMemoryError", "SafetensorError")

if __name__ == "__main__":
    sys.exit(main())
