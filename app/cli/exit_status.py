"""Exit statuses, the error that ends a verb, and the end by Ctrl-C."""

import json
import os
import signal
from typing import IO, Any, Final, Literal

import click

from app.cli.output import printable, wants_json

# Click exits with 2 if it cannot parse the arguments, and with 1 if the reader of stdout is gone. `check` also uses 1.
STATUSES: Final = {"usage": 2, "conflict": 3, "refused": 4, "failed": 5}

Kind = Literal["usage", "conflict", "refused", "failed"]


class CommandError(click.ClickException):
    """An error that ends a verb with an exit status and one line on stderr. The message contains no secret.

    `version` is the current version if the service sent it.
    """

    def __init__(self, kind: Kind, message: str, *, request_id: str | None = None, version: int | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.exit_code = STATUSES[kind]  # type: ignore[misc]  # click declares a class variable; each kind has its own status
        self.request_id = request_id
        self.version = version
        self._as_json = wants_json()

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the error on stderr, as text or as JSON. Click calls this method."""
        request = f" (request {printable(self.request_id)})" if self.request_id else ""
        line = f"{click.style('error', fg='red')}   {self.message}{request}"
        error = {"error": self.kind, "message": self.message, "version": self.version, "request_id": self.request_id}
        click.echo(json.dumps(error) if self._as_json else line, file, err=True, color=self.show_color)


def end_on_interrupt(text: str) -> None:
    """Make Ctrl-C print `text` on stderr before it ends the process, unless the caller ignores or handles SIGINT."""

    def end(_signal: int, _frame: object) -> None:
        os.write(2, f"\ninterrupted: {text}\n".encode())
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)

    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, end)
