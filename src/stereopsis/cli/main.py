"""The command line: one file per verb in this folder, found by its name; every error is one sentence.

A verb's module `some_verb.py` holds a function (or a Typer app of sub-verbs) of that name. It imports
torch and everything heavy inside, so that `--help` stays quick. Modules that begin with `_` are no verbs.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
import warnings
from collections.abc import Sequence
from textwrap import shorten
from typing import Any

import typer

import stereopsis.cli

_ORDER = (
    "demo",
    "predict",
    "doctor",
    "rectify",
    "models",
    "datasets",
    "evaluate",
    "compare",
    "train",
    "label",
    "distil",
    "render",
    "export",
    "import_weights",
    "bench",
    "submit",
)

BAD_INPUT, INTERRUPTED, FAULT = 2, 130, 1
"""Exit codes: something to correct, Ctrl-C, a fault of ours."""

_COMPILERS = ("torch._dynamo", "torch._inductor")
_LONGEST = 400
"""Characters of a library's words in a sentence: a C++ compiler's may be two hundred thousand."""


def application() -> typer.Typer:
    """All verbs that are there, in the order of a reader's interest."""
    app = typer.Typer(
        name="stereopsis",
        help="Depth from two rectified images: predict, measure, train, label, export.",
        epilog="Example: stereopsis predict left.png right.png --output out/",
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback(invoke_without_command=True)(_root)
    modules = pkgutil.iter_modules(stereopsis.cli.__path__)
    names = {module.name for module in modules if not module.name.startswith("_") and module.name != "main"}
    ordered = [name for name in _ORDER if name in names] + sorted(names - set(_ORDER))
    for name in ordered:
        verb = getattr(importlib.import_module(f"stereopsis.cli.{name}"), name, None)
        title = name.replace("_", "-")
        if isinstance(verb, typer.Typer):
            app.add_typer(verb, name=title)
        elif callable(verb):
            app.command(title)(verb)
    return app


def _root(
    version: bool = typer.Option(False, "--version", is_eager=True, help="Print the version and stop."),
) -> None:
    if version:
        typer.echo(stereopsis.__version__)
        raise typer.Exit


def run() -> None:
    """The program `stereopsis`."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Runs a command line and gives its exit code; errors go to stderr as one line, `error: ...`.

    With STEREOPSIS_TRACEBACK=1 in the environment they are raised instead.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = _show_warning
        try:
            result = application()(
                args=list(arguments) or ["--help"], prog_name="stereopsis", standalone_mode=False
            )
            sys.stdout.flush()
        except KeyboardInterrupt:
            return INTERRUPTED
        except Exception as error:
            if os.environ.get("STEREOPSIS_TRACEBACK") == "1":
                raise
            return _report(error)
    return result if isinstance(result, int) else 0


def _report(error: Exception) -> int:
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    sentence, code = _sentence(error)
    typer.echo(f"error: {' '.join(sentence.split())}", err=True)
    return code


def _sentence(error: Exception) -> tuple[str, int]:
    """What to tell the user, and the exit code."""
    format_message = getattr(error, "format_message", None)
    if format_message is not None:
        context: Any = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "stereopsis"
        return f"{format_message().rstrip('.')} (see {command} --help)", BAD_INPUT
    if isinstance(error, ImportError):
        return f"{error}: install what is missing (pip install 'stereopsis[...]' names the extras)", BAD_INPUT
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror}", BAD_INPUT
    if isinstance(error, MemoryError) or _is_out_of_memory(error):
        return "there is not enough memory for this: lower --max-memory or --scale", BAD_INPUT
    if isinstance(error, ValueError | OSError):
        return str(error) or type(error).__name__, BAD_INPUT
    told = shorten(f"{type(error).__name__}: {error}".removesuffix(": "), _LONGEST, placeholder=" ...")
    if type(error).__module__.startswith(_COMPILERS):
        told, *_ = told.partition(" Set TORCHDYNAMO_VERBOSE")
        return (
            f"torch.compile failed: install a C++ compiler (g++), or do without compile ({told})",
            BAD_INPUT,
        )
    return f"{told} (a fault of the program: STEREOPSIS_TRACEBACK=1 shows where, please report it)", FAULT


def _is_out_of_memory(error: Exception) -> bool:
    said = str(error)
    allocation = "DefaultCPUAllocator" in said or "out of memory" in said or "Insufficient memory" in said
    return allocation and not isinstance(error, ValueError | OSError)  # OpenCV's errors are plain exceptions


def _show_warning(message: Warning | str, category: type[Warning], filename: str, *_: Any) -> None:
    """Our own warnings as one line; those of libraries say nothing to a user of the program."""
    if category is UserWarning and f"{os.sep}stereopsis{os.sep}" in filename:
        typer.echo(f"warning: {' '.join(str(message).split())}", err=True)
