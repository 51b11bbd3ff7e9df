"""Names, options and help of the verbs. A verb's own module is imported when the verb runs."""

import os
import sys

import click

from app.dev import SUBJECT, TENANT
from app.model import MAX_REASON, is_reason
from app.version import VERSION

_VERSIONS = click.IntRange(0, 10**18 - 1)


def _remember_json(context: click.Context, _option: click.Parameter, as_json: bool) -> None:
    context.obj = as_json


_json = click.option(
    "--json", is_flag=True, expose_value=False, callback=_remember_json, help="Print results and errors as JSON."
)

_SET_HELP_END = """\b
Examples:
  oms-config set on --reason "Go-live of the new warehouse"
  oms-config set off --tenant acme --if-version 7 --json
"""


def _check_reason(_context: click.Context, _option: click.Parameter, text: str | None) -> str | None:
    if text is not None and not is_reason(text):
        raise click.BadParameter(f"expected 1 to {MAX_REASON} printable characters")
    return text


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
  oms-config tenants --on

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
    """Print the current setting, on or off, its version, and whose it is.

    With --json: {"tenant", "enabled", "version"}.
    """
    from app.cli.get import get as run

    run()


@oms_config.command("set", epilog=_SET_HELP_END)
@click.argument("value", type=click.Choice(["on", "off"]))
@click.option("--tenant", metavar="NAME", help="Change nothing and fail unless the token is of this tenant.")
@click.option("--if-version", type=_VERSIONS, metavar="V", help="Fail with a conflict unless version V is current.")
@click.option("--reason", metavar="TEXT", callback=_check_reason, help="Reason for the change, for the history.")
@_json
def set_(*, value: str, tenant: str | None, if_version: int | None, reason: str | None) -> None:
    """Set the setting, and print the previous change, and the command that undoes this one.

    Setting the current value changes nothing, so there is nothing to undo.

    With --json: {"tenant", "enabled", "version", "changed", "previous": {"version", "enabled", "changed_at",
    "changed_by", "reason"}, "undo"}. The last three are null if the history cannot be read.
    """
    from app.cli.set import set_ as run

    run(enabled=value == "on", tenant=tenant, if_version=if_version, reason=reason)


@oms_config.command(epilog="\b\nExamples:\n  oms-config history --limit 5\n  oms-config history --before 8")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="Number of changes to print.")
@click.option("--before", type=_VERSIONS, metavar="V", help="Print only changes older than version V.")
@_json
def history(*, limit: int, before: int | None) -> None:
    """Print past changes, newest first.

    Each line has the version, the value, the time, the author, the request ID, and the reason if there is one.

    With --json: {"tenant", "changes": [{"version", "enabled", "changed_at", "changed_by", "reason", "request_id"}]}.
    """
    from app.cli.history import history as run

    run(limit=limit, before=before)


@oms_config.command(epilog="\b\nExample:\n  oms-config watch --json | jq .enabled")
@_json
def watch() -> None:
    """Print the current setting, then each change as it happens, until Ctrl-C.

    If the connection ends, this command reports it on stderr, reconnects, and prints the changes made meanwhile. It
    exits if the service rejects the token or if the first connection fails.

    With --json: {"event", "tenant", "version", "enabled", "changed_at", "changed_by", "reason"}. The event is "change",
    or "reset" if changes before it may be missing.
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


@oms_config.command(epilog="\b\nExamples:\n  oms-config tenants --on\n  oms-config tenants --changed-since 2h --json")
@click.option("--on", is_flag=True, help="List only tenants whose setting is on.")
@click.option("--off", is_flag=True, help="List only tenants whose setting is off.")
@click.option(
    "--changed-since", metavar="TIME", help="List only changes since a time, a date, or a duration such as 90s, 2h, 7d."
)
@click.option("--match", metavar="PATTERN", default="*", help="List only tenants whose name matches, such as 'shop-*'.")
@_json
def tenants(*, on: bool, off: bool, changed_since: str | None, match: str) -> None:
    """List all tenants of the store that were ever set.

    Reads the variables of the web process, and then all Redis servers of the store directly, as check does. Each line
    has the tenant, the value, the version, the time, the author and the reason. The lines are not sorted. The total is
    on stderr.

    With --json, one object for each tenant: {"tenant", "version", "enabled", "changed_at",
    "changed_by", "reason"}.

    \b
    Exit status:
      0  the list is complete
      2  a setting is bad or missing, or an option is wrong
      5  the store cannot be reached, or a value in it is damaged
    """
    if on and off:
        raise click.UsageError("--on and --off exclude each other: without them, all tenants are listed")
    from app.cli.tenants import tenants as run

    run(enabled=on if on or off else None, changed_since=changed_since, match=match)
