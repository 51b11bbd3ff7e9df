"""Exit statuses, and the error that ends a verb."""

import json
from typing import IO, Any, Final, Literal

import click

from app.cli.output import wants_json

# Click itself ends with 2 if it cannot parse the command. Only `check` ends with 1.
STATUSES: Final = {"usage": 2, "conflict": 3, "refused": 4, "failed": 5}

Kind = Literal["usage", "conflict", "refused", "failed"]


class CommandError(click.ClickException):
    """Ends a verb with an exit status and one line on stderr. The message holds no secret.

    `version` is the current version, if the service sent it. `unknown_outcome`: a change may have been stored.
    """

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        request_id: str | None = None,
        version: int | None = None,
        unknown_outcome: bool = False,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.exit_code = STATUSES[kind]  # type: ignore[misc] # one class for all statuses
        self.request_id = request_id
        self.version = version
        self.unknown_outcome = unknown_outcome
        self._as_json = wants_json()

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the line. Click calls this."""
        request = f" (request {self.request_id})" if self.request_id else ""
        line = f"{click.style('error', fg='red')}   {self.message}{request}"
        error = {"error": self.kind, "message": self.message, "version": self.version, "request_id": self.request_id}
        click.echo(json.dumps(error) if self._as_json else line, file, err=True, color=self.show_color)
