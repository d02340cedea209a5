"""What all commands share: mistakes told in words, and options that several of them take."""

import errno
import os
import re
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from spillover.errors import SpilloverError
from spillover.store import lab_folder

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_WRITING = (errno.EACCES, errno.EPERM, errno.EROFS)
RUST_ERRNO = re.compile(r"\(os error (\d+)\)")
"""How safetensors and polars, which raise no OSError, tell the operating system's error."""


def lab_option(holds: str) -> Any:
    """The option `--lab`: a folder, or an object store's address, where something lies."""
    return typer.Option("--lab", parser=_lab, metavar="LAB", help=f"{holds}: a folder, or s3://BUCKET/PREFIX.")


def _lab(ref: str | Path) -> Path:
    """The lab's folder; options are read before a command could tell of a mistake."""
    try:
        return lab_folder(ref)
    except SpilloverError as error:
        stop(str(error))


LabDir = Annotated[Path, lab_option("Where results lie")]


def told_plainly(command: Callable[..., None]) -> Callable[..., None]:
    """A command that tells a user's mistake, or the machine's, in words: no traceback, exit code 2."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except SpilloverError as error:
            stop(str(error))
        except KeyboardInterrupt as signal:
            more = f" {signal}" if str(signal) else ""
            stop(f"interrupted.{more} What was finished is kept: run the same command again to go on.", code=130)
        except Exception as error:
            why = _outside_world(error)
            if why is None:
                raise
            place = getattr(error, "filename", None) or kwargs.get("lab") or "the disk"
            stop(f"{place}: {why}. What was finished is kept: run the same command again to go on.")

    return wrapped


def _outside_world(error: Exception) -> str | None:
    """What the machine has refused, in words; None for an error that is ours."""
    told = RUST_ERRNO.search(str(error))
    number = error.errno if isinstance(error, OSError) else int(told[1]) if told else None
    if number in NO_SPACE:
        return "the disk is full; make room"
    return f"cannot be written: {os.strerror(number)}" if number in NO_WRITING else None


def stop(message: str, code: int = 2) -> NoReturn:
    """Ends the command with a message on standard error."""
    print(f"spillover: {message}", file=sys.stderr)
    raise typer.Exit(code)


def names(listed: str | None) -> tuple[str, ...]:
    """The names in a list with commas."""
    return tuple(name.strip() for name in (listed or "").split(",") if name.strip())
