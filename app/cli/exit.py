"""How a verb ends: its status, its line on stderr, or the signal that ended it."""

import json
import os
import signal
import sys
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NoReturn

import click

# What a shell sees. Click itself ends with 2 where the command is not understood, and `check` alone ends with 1.
STATUSES: Final = {"usage": 2, "conflict": 3, "refused": 4, "failed": 5}

_STDOUT: Final = 1

Kind = Literal["usage", "conflict", "refused", "failed"]


@dataclass(eq=False)
class CommandError(Exception):
    """Why a verb cannot do what it was asked for: one sentence without a secret.

    `version` stands where that is the reason. `passing` is what may be gone with the next attempt. `unknown` is what
    leaves open whether a change was stored.
    """

    kind: Kind
    message: str
    request_id: str | None = field(default=None, kw_only=True)
    version: int | None = field(default=None, kw_only=True)
    passing: bool = field(default=False, kw_only=True)
    unknown: bool = field(default=False, kw_only=True)


class CliCommand(click.Command):
    """A command that ends with one line on stderr whatever goes wrong; with `--json`, that is one JSON object."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs it, and ends the process where it fails."""
        try:
            return super().invoke(ctx)
        except CommandError as failure:
            _print_failure(failure, as_json=ctx.params["as_json"])
            ctx.exit(STATUSES[failure.kind])
        except KeyboardInterrupt:
            end_by(signal.SIGINT)
        except BrokenPipeError:
            end_by(signal.SIGPIPE)
        except OSError as error:
            end_unwritten(error, as_json=ctx.params["as_json"])


def end_unwritten(error: OSError, *, as_json: bool = False) -> NoReturn:
    """Ends the process where what it has to say cannot be written, as on a full disk."""
    # What is left of it would be tried again, and fail again, as Python ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)
    _print_failure(CommandError("failed", f"cannot write: {error.strerror}"), as_json=as_json)
    sys.exit(STATUSES["failed"])


def note(text: str, *, as_json: bool) -> None:
    """Tells on stderr what is no part of the answer."""
    click.echo(json.dumps({"note": text}) if as_json else text, err=True)


def end_at_once_on_interrupt(startup_error: str = "") -> None:
    """From now on Ctrl-C ends the process on the spot, for there is nothing to put in order.

    The event loop would first wait for its threads, one of which may be asking for an address for many seconds.
    Whoever started the command so that it ignores Ctrl-C is obeyed.
    """

    def end(_signal: int, _frame: object) -> None:
        if startup_error:
            os.write(2, f"\n{startup_error}\n".encode())
        end_by(signal.SIGINT)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end)


def end_by(number: signal.Signals) -> NoReturn:
    """Ends the process as if nobody had caught the signal: a shell's loop then ends as well, and sees 128 + number."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    sys.exit(128 + number)  # where the signal is blocked


def _print_failure(failure: CommandError, *, as_json: bool) -> None:
    if as_json:
        error = {"error": failure.kind, "message": failure.message, "version": failure.version}
        click.echo(json.dumps({**error, "request_id": failure.request_id}), err=True)
        return
    request = f" (request {failure.request_id})" if failure.request_id else ""
    click.echo(f"{click.style('error', fg='red')}   {failure.message}{request}", err=True)
