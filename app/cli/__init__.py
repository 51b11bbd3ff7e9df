"""The command `oms-config`, also `python -m app.cli`.

    commands    its verbs: names, options and help
    setting     get, set, history
    watch    watch
    token     token
    check    check
    client     the client of the HTTP interface
    exit      how each verb ends: status, line, signal
    output       how settings and changes look on the screen

Imports go down only: commands; then setting, watching, signing and checking, each imported when its verb runs; then
service; then ending and lines.
"""

import os
import signal


def main() -> None:
    """Runs the command with the process's arguments. Ctrl-C ends it without a traceback from here on."""
    try:
        from app.cli.commands import oms_config  # noqa: PLC0415 - Ctrl-C may come while it is imported
        from app.cli.exit import end_unwritten  # noqa: PLC0415 - the same

        try:
            oms_config(prog_name="oms-config")
        except OSError as error:
            end_unwritten(error)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
