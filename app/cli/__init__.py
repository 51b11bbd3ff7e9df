"""The command `oms-config`, which also runs as `python -m app.cli`.

    commands     names, options and help of the verbs
    get          prints the current setting
    set          changes the setting
    history      prints past changes
    watch        prints each change as it happens
    token        signs a token for development
    check        runs the preflight check
    tenants      lists all tenants of the store
    client       HTTP client of the service
    exit_status  exit statuses, and the error that ends a verb
    output       prints results as text or JSON

`commands` imports a verb's module only when the verb runs, so that help and completion start fast. Imports point down
this list.
"""

import os
import signal
import sys


def main() -> None:
    """Run the command with the arguments of this process."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the process at once, without a traceback
    from app.cli.commands import oms_config  # noqa: PLC0415 - Ctrl-C during this import must not print a traceback
    from app.cli.exit_status import STATUSES  # noqa: PLC0415 - same reason

    reason: str | None = "stdout is closed"
    if sys.stdout is not None:  # otherwise click would print nothing and report success
        try:
            oms_config(prog_name="oms-config")
        except OSError as error:
            reason = error.strerror
    if sys.stderr is not None:
        sys.stderr.write(f"error   cannot write the output: {reason}\n")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes stdout at exit, and would fail again
    sys.exit(STATUSES["failed"])
