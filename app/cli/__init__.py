"""The command `oms-config`, also `python -m app.cli`.

    commands     the verbs: names, options and help
    get          prints the current setting
    set          changes the setting
    history      prints changes
    watch        prints each change as it is made
    token        signs a token for development
    check        runs the preflight check
    client       HTTP client of the service
    exit_status  exit statuses and the line on stderr
    output       prints results as text or JSON

`commands` imports a verb when it runs, so help and completion are fast. Imports go down this list.
"""

import os
import signal
import sys


def main() -> None:
    """Run the command with the arguments of the process."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the process at once, without a traceback
    from app.cli.commands import oms_config  # noqa: PLC0415 - Ctrl-C may come during this import
    from app.cli.exit_status import STATUSES  # noqa: PLC0415 - the same

    try:
        oms_config(prog_name="oms-config")
    except OSError as error:
        sys.stderr.write(f"error   cannot write the output: {error.strerror}\n")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes stdout again when it exits
        sys.exit(STATUSES["failed"])
