"""The verbs of `oms-config`: names, options and help. What each of them does is imported when it runs."""

import os
import sys

import click

from app.cli.exit import CliCommand

_VERSIONS = click.IntRange(0, 10**18 - 1)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, also where it fails.")

_GROUP_HELP_END = """\b
Variables:
  OMS_CONFIG_URL    the service's address, such as http://127.0.0.1:8000
  OMS_CONFIG_TOKEN  an access token; there is no option for it, which others could see in the list of processes
  NO_COLOR          no colours, at a terminal either

\b
Exit status:
  0  done
  2  the command, a variable or a setting is wrong
  3  conflict: another version stands, and nothing was changed
  4  refused: the token is not good (401), or not for this (403)
  5  the service, or the way to it, failed

\b
Examples:
  export OMS_CONFIG_URL=http://127.0.0.1:8000
  export OMS_CONFIG_TOKEN="$(oms-config token)"
  oms-config get
  oms-config set on --if-version 0
  oms-config history --limit 5
  oms-config watch --json

\b
Completion, in ~/.bashrc or ~/.zshrc:
  eval "$(_OMS_CONFIG_COMPLETE=bash_source oms-config)"
  eval "$(_OMS_CONFIG_COMPLETE=zsh_source oms-config)"
"""


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=_GROUP_HELP_END)
@click.pass_context
def oms_config(context: click.Context) -> None:
    """The switch external_oms.enabled, from the command line."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        context.color = False
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a subject may be in any script, and the terminal in none


@oms_config.command(cls=CliCommand, epilog="\b\nExample:\n  oms-config get --json")
@_as_json
def get(*, as_json: bool) -> None:
    """Print on or off, and the version.

    With --json: {"enabled", "version"}.
    """
    from app.cli import setting  # noqa: PLC0415 - httpx: help and completion do without

    setting.get(as_json=as_json)


@oms_config.command(
    "set", cls=CliCommand, epilog="\b\nExamples:\n  oms-config set on\n  oms-config set off --if-version 7 --json"
)
@click.argument("value", type=click.Choice(["on", "off"]))
@click.option("--if-version", type=_VERSIONS, metavar="V", help="Only where this version stands; otherwise conflict.")
@_as_json
def set_(*, value: str, if_version: int | None, as_json: bool) -> None:
    """Set it, and say what has changed and who had set it before.

    Setting what stands already changes nothing. With --json: {"enabled", "version", "changed", "previous": {"version",
    "enabled", "changed_at", "changed_by"}}, where "changed" and "previous" are null if they cannot be told.
    """
    from app.cli import setting  # noqa: PLC0415 - httpx: help and completion do without

    setting.set_(enabled=value == "on", if_version=if_version, as_json=as_json)


@oms_config.command(
    cls=CliCommand, epilog="\b\nExamples:\n  oms-config history --limit 5\n  oms-config history --before 8"
)
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="How many at the most.")
@click.option("--before", type=_VERSIONS, metavar="V", help="Only changes older than this version.")
@_as_json
def history(*, limit: int, before: int | None, as_json: bool) -> None:
    """Print the changes, newest first: version, value, when, by whom, and the request's identifier.

    With --json: {"changes": [{"version", "enabled", "changed_at", "changed_by", "request_id"}]}.
    """
    from app.cli import setting  # noqa: PLC0415 - httpx: help and completion do without

    setting.history(limit=limit, before=before, as_json=as_json)


@oms_config.command(cls=CliCommand, epilog="\b\nExample:\n  oms-config watch --json | jq .enabled")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each change.")
def watch(*, as_json: bool) -> None:
    """Print what stands, then each change as it comes, until Ctrl-C.

    Connects again when the connection ends, and misses nothing meanwhile; stderr tells of it. It ends where the token
    is refused, and where the first connection fails.

    With --json: {"event", "version", "enabled", "changed_at", "changed_by"}; the event is "change", or "reset" where
    changes before it may be missing.
    """
    from app.cli import watch as verb  # noqa: PLC0415 - httpx: help and completion do without

    verb.watch(as_json=as_json)


@oms_config.command(
    cls=CliCommand, epilog='\b\nExample:\n  export OMS_CONFIG_TOKEN="$(oms-config token --tenant acme)"'
)
@click.option("--tenant", default="acme", show_default=True, help="Whose setting it opens.")
@click.option("--subject", default="developer", show_default=True, help="Who is acting.")
@click.option("--hours", type=click.IntRange(1, 24 * 365), default=8, show_default=True, help="How long it is good.")
@_as_json
def token(*, tenant: str, subject: str, hours: int, as_json: bool) -> None:
    """Sign a token for development.

    Takes JWT_SECRET and the other JWT_ variables of the web process; without them, the secret of bin/serve in this
    directory. Where an identity provider makes the tokens, there is nothing to sign one with.

    With --json: {"token", "tenant", "subject", "seconds"}.
    """
    from app.cli import token as verb  # noqa: PLC0415 - the settings and cryptography: help and completion do without

    verb.token(tenant=tenant, subject=subject, hours=hours, as_json=as_json)


@oms_config.command(
    cls=CliCommand, epilog="\b\nExample:\n  REDIS_URL=redis://localhost:6379/0 JWT_SECRET=... oms-config check --json"
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: ok, findings, store.")
def check(*, as_json: bool) -> None:
    """Say what the store would lose, before a release goes out.

    Takes the variables of the web process. Has each server of the store, replicas too, tell how it is configured, makes
    a change of its own, and takes it away.

    \b
    Exit status:
      0  the release may go on; there may be warnings
      1  the release must not go on: the store may evict settings
      2  a setting is bad or missing
      5  the store cannot be reached, or does not do what the service needs
    """
    from app.cli import check as verb  # noqa: PLC0415 - the driver of the store: the other verbs do without

    verb.check(as_json=as_json)
