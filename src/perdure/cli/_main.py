"""One run of the command: parse, do, and exit with a code that says how it went."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, Final, cast

import typer

from perdure.cli import _app
from perdure.cli._failures import Exit, Failure, failure_of
from perdure.cli._output import PipeClosed, escape_what_can_not_be_encoded, report

# typer carries a click of its own, or uses the installed one: this is the class in either.
_USAGE_ERROR: Final = cast(type[Exception], typer.BadParameter.__mro__[2])

_PIPE_CLOSED: Final = 128 + signal.SIGPIPE
"""What a shell reports of a program that wrote to a reader who had left."""


def run(arguments: Sequence[str]) -> int:
    """The exit code of ``perdure`` with these *arguments*, as docs/reference/cli.md lists them."""
    as_json = "--json" in arguments
    escape_what_can_not_be_encoded()
    try:
        code = _app.app(list(arguments), prog_name="perdure", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else Exit.OK
    except (BrokenPipeError, PipeClosed):
        # Python flushes stdout once more at its end, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    except (KeyboardInterrupt, typer.Abort):
        return Exit.INTERRUPTED
    except _USAGE_ERROR as error:
        failure = _usage_failure(error)
        if not failure.message:  # no command was named, and the help was printed
            return Exit.USAGE
    except Exception as error:
        known = failure_of(error)
        if known is None:
            raise
        failure = known
    report(failure, as_json)
    return failure.exit_code


def _usage_failure(error: Any) -> Failure:  # Any: a click error, whichever click it is of
    message = error.format_message()
    context = getattr(error, "ctx", None)
    path = "perdure" if context is None else context.command_path
    return Failure(Exit.USAGE, "Usage", message, f"`{path} --help` shows how it is used")
