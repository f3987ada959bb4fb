"""`wan convert`: a checkpoint in the other layout."""

from pathlib import Path

from wan_model.checkpoints import convert
from wan_model.video_io import atomic_directory, check_directory


def run(source: Path, target: Path, layout: str) -> None:
    """The target must be new: it appears complete or not at all, and nothing that was there is touched."""
    if target.exists():
        raise FileExistsError(f"[convert] target must not exist yet, got {target}; choose another or remove it")
    check_directory(target.parent)
    with atomic_directory(target) as temporary:
        written = convert(source, temporary, to=layout)  # type: ignore[arg-type]
    for path in written:
        print(target / path.relative_to(temporary))
