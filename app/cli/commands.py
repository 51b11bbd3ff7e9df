"""The verbs of `oms-config`: names, options and help. The code of a verb is imported when it runs."""

import os
import sys

import click

_VERSIONS = click.IntRange(0, 10**18 - 1)


def _remember_json(context: click.Context, _option: click.Parameter, as_json: bool) -> None:
    context.obj = as_json


_json = click.option(
    "--json", is_flag=True, expose_value=False, callback=_remember_json, help="Print JSON, also if the command fails."
)

_GROUP_HELP_END = """\b
Variables:
  OMS_CONFIG_URL    the service's address, such as http://127.0.0.1:8000
  OMS_CONFIG_TOKEN  an access token; there is no option for it, which others could see in the list of processes
  NO_COLOR          no colours, at a terminal either

\b
Exit status:
  0  done
  2  the command, a variable or a setting is wrong
  3  conflict: another version is current, and nothing was changed
  4  refused: the token is rejected (401), or does not allow this (403)
  5  the service, or the connection to it, failed

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


@oms_config.command(epilog="\b\nExample:\n  oms-config get --json")
@_json
def get() -> None:
    """Print on or off, and the version.

    With --json: {"enabled", "version"}.
    """
    from app.cli.get import get as run

    run()


@oms_config.command("set", epilog="\b\nExamples:\n  oms-config set on\n  oms-config set off --if-version 7 --json")
@click.argument("value", type=click.Choice(["on", "off"]))
@click.option(
    "--if-version", type=_VERSIONS, metavar="V", help="Only if this version is current; otherwise it is a conflict."
)
@_json
def set_(*, value: str, if_version: int | None) -> None:
    """Change the setting, and print the change before it.

    Setting the current value changes nothing. With --json: {"enabled", "version", "changed", "previous": {"version",
    "enabled", "changed_at", "changed_by"}}; "changed" and "previous" are null if the history cannot be read.
    """
    from app.cli.set import set_ as run

    run(enabled=value == "on", if_version=if_version)


@oms_config.command(epilog="\b\nExamples:\n  oms-config history --limit 5\n  oms-config history --before 8")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="At most this many.")
@click.option("--before", type=_VERSIONS, metavar="V", help="Only changes older than this version.")
@_json
def history(*, limit: int, before: int | None) -> None:
    """Print the changes, newest first: version, value, when, by whom, and the request's identifier.

    With --json: {"changes": [{"version", "enabled", "changed_at", "changed_by", "request_id"}]}.
    """
    from app.cli.history import history as run

    run(limit=limit, before=before)


@oms_config.command(epilog="\b\nExample:\n  oms-config watch --json | jq .enabled")
@_json
def watch() -> None:
    """Print the current setting, then each change as it is made, until Ctrl-C.

    Connects again when the connection ends, and misses nothing meanwhile; stderr says so. It ends if the token is
    rejected, or if the first connection fails.

    With --json: {"event", "version", "enabled", "changed_at", "changed_by"}; the event is "change", or "reset" if
    changes before it may be missing.
    """
    from app.cli.watch import watch as run

    run()


@oms_config.command(epilog='\b\nExample:\n  export OMS_CONFIG_TOKEN="$(oms-config token --tenant acme)"')
@click.option("--tenant", default="acme", show_default=True, help="Whose setting it opens.")
@click.option("--subject", default="developer", show_default=True, help="Who is acting.")
@click.option("--hours", type=click.IntRange(1, 24 * 365), default=8, show_default=True, help="How long it is valid.")
@_json
def token(*, tenant: str, subject: str, hours: int) -> None:
    """Sign a token for development.

    Takes JWT_SECRET and the other JWT_ variables of the web process; without them, the secret of bin/serve in this
    directory. Where an identity provider makes the tokens, there is nothing to sign one with.

    With --json: {"token", "tenant", "subject", "seconds"}.
    """
    from app.cli.token import token as run

    run(tenant=tenant, subject=subject, hours=hours)


@oms_config.command(epilog="\b\nExample:\n  REDIS_URL=redis://localhost:6379/0 JWT_SECRET=... oms-config check --json")
@_json
def check() -> None:
    """Print what the store would lose, before a release goes out.

    Takes the variables of the web process. Asks each server of the store, replicas too, how it is configured. Then it
    makes a change for a tenant that cannot exist, and removes it.

    \b
    Exit status:
      0  the release may go on; there may be warnings
      1  the release must not go on: the store may evict settings
      2  a setting is bad or missing
      5  the store cannot be reached, or does not do what the service needs
    """
    from app.cli.check import check as run

    run()
