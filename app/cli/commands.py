"""Names, options and help of the verbs. A verb's own module is imported when the verb runs."""

import os
import sys

import click

from app.dev import SUBJECT, TENANT
from app.version import VERSION

_VERSIONS = click.IntRange(0, 10**18 - 1)


def _remember_json(context: click.Context, _option: click.Parameter, as_json: bool) -> None:
    context.obj = as_json


_json = click.option(
    "--json", is_flag=True, expose_value=False, callback=_remember_json, help="Print results and errors as JSON."
)

_GROUP_HELP_END = """\b
Variables:
  OMS_CONFIG_URL    address of the service, such as http://127.0.0.1:8000
  OMS_CONFIG_TOKEN  access token; there is no option for it, because other users can see the options of a process
  NO_COLOR          if not empty, no colours

\b
Exit status:
  0  success
  2  the command line, a variable or a setting is wrong
  3  conflict: another version is current, and nothing was changed
  4  the service rejected the token (401), or the token does not allow the request (403)
  5  the service or the connection to it failed; the outcome of a change may be unknown

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
@click.version_option(VERSION, prog_name="oms-config", message="%(prog)s %(version)s")
@click.pass_context
def oms_config(context: click.Context) -> None:
    """Read, set and follow the setting external_oms.enabled of one tenant: the tenant of the token."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        context.color = False
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # the terminal's encoding may lack characters of a subject


@oms_config.command(epilog="\b\nExample:\n  oms-config get --json")
@_json
def get() -> None:
    """Print the current setting, on or off, and its version.

    With --json: {"enabled", "version"}.
    """
    from app.cli.get import get as run

    run()


@oms_config.command("set", epilog="\b\nExamples:\n  oms-config set on\n  oms-config set off --if-version 7 --json")
@click.argument("value", type=click.Choice(["on", "off"]))
@click.option("--if-version", type=_VERSIONS, metavar="V", help="Fail with a conflict unless version V is current.")
@_json
def set_(*, value: str, if_version: int | None) -> None:
    """Set the setting, and print the previous change.

    Setting the current value changes nothing. With --json: {"enabled", "version", "changed", "previous": {"version",
    "enabled", "changed_at", "changed_by"}}. Both "changed" and "previous" are null if the history cannot be read.
    """
    from app.cli.set import set_ as run

    run(enabled=value == "on", if_version=if_version)


@oms_config.command(epilog="\b\nExamples:\n  oms-config history --limit 5\n  oms-config history --before 8")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="Number of changes to print.")
@click.option("--before", type=_VERSIONS, metavar="V", help="Print only changes older than version V.")
@_json
def history(*, limit: int, before: int | None) -> None:
    """Print past changes, newest first.

    Each line has the version, the value, the time, the author and the request ID.

    With --json: {"changes": [{"version", "enabled", "changed_at", "changed_by", "request_id"}]}.
    """
    from app.cli.history import history as run

    run(limit=limit, before=before)


@oms_config.command(epilog="\b\nExample:\n  oms-config watch --json | jq .enabled")
@_json
def watch() -> None:
    """Print the current setting, then each change as it happens, until Ctrl-C.

    If the connection ends, this command reports it on stderr, reconnects, and prints the changes made meanwhile. It
    exits if the service rejects the token or if the first connection fails.

    With --json: {"event", "version", "enabled", "changed_at", "changed_by"}. The event is "change", or "reset" if
    changes before it may be missing.
    """
    from app.cli.watch import watch as run

    run()


@oms_config.command(epilog='\b\nExample:\n  export OMS_CONFIG_TOKEN="$(oms-config token --tenant acme)"')
@click.option("--tenant", default=TENANT, show_default=True, help="Tenant whose setting the token opens.")
@click.option("--subject", default=SUBJECT, show_default=True, help="Author of the changes made with the token.")
@click.option("--hours", type=click.IntRange(1, 24 * 365), default=8, show_default=True, help="Lifetime in hours.")
@_json
def token(*, tenant: str, subject: str, hours: int) -> None:
    """Sign a token for development.

    Reads JWT_SECRET and the other JWT_ variables of the web process. If no variable provides a key, reads the secret
    that bin/serve created in its checkout. If an identity provider issues the tokens, this command fails.

    With --json: {"token", "tenant", "subject", "seconds"}.
    """
    from app.cli.token import token as run

    run(tenant=tenant, subject=subject, hours=hours)


@oms_config.command(epilog="\b\nExample:\n  REDIS_URL=redis://localhost:6379/0 JWT_SECRET=... oms-config check --json")
@_json
def check() -> None:
    """Check before a release whether the store can lose settings.

    Reads the variables of the web process and the configuration of each Redis server, including replicas. Then writes
    a test change for a tenant that cannot exist, and removes it.

    \b
    Exit status:
      0  the release can proceed; there may be warnings
      1  the release must stop: the store may evict settings
      2  a setting is bad or missing
      5  the store cannot be reached, or lacks something that the service needs
    """
    from app.cli.check import check as run

    run()
