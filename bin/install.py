"""Installs packages into .venv if they are missing, then runs a command. Called by bin/setup; standard library only."""

import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import venv
from pathlib import Path

VENV = Path(".venv")
PYTHON = VENV / "bin" / "python"
LOG = VENV / "install.log"
LOCKED = (Path("requirements.txt"), Path("requirements-serve.txt"), Path("requirements-dev.txt"))


def main(arguments: list[str]) -> None:
    """Install the packages before `--`, then replace this process with the command after it.

    Exit with one line on stderr if the installation fails.
    """
    end = arguments.index("--")
    pip_arguments, command = arguments[:end], arguments[end + 1 :]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that pip stops too
    try:
        ensure(pip_arguments)
    except OSError as error:
        sys.exit(f"bin/setup: cannot write {VENV}: {error.strerror}")
    except KeyboardInterrupt:
        sys.exit("stopped")
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.execvp(command[0], command)


def ensure(pip_arguments: list[str]) -> None:
    """Install the packages unless .venv has them. Wait while another process installs."""
    lock = os.open("bin", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    stamp = VENV / f"installed-{hashlib.sha256(' '.join(pip_arguments).encode()).hexdigest()[:16]}"
    if not (stamp.is_file() and stamp.read_text() == fingerprint()):
        print("installing the locked dependencies into .venv", file=sys.stderr, flush=True)
        make_venv()
        install(pip_arguments)
        stamp.write_text(fingerprint())
    os.close(lock)


def fingerprint() -> str:
    """Return a text that changes when the interpreter or a locked version changes."""
    return f"{sys.version} {hashlib.sha256(b''.join(lock.read_bytes() for lock in LOCKED)).hexdigest()}"


def make_venv() -> None:
    """Create .venv, unless it exists, works and belongs to this Python."""
    if PYTHON.exists():
        ask = [PYTHON, "-c", "import pip, sys; print(sys.version)"]
        if subprocess.run(ask, capture_output=True, text=True, check=False).stdout.strip() == sys.version:
            return
    try:
        venv.create(VENV, clear=True, symlinks=True, with_pip=True)
    except subprocess.CalledProcessError:
        sys.exit(f"bin/setup: '{sys.executable} -m venv' failed; on Debian, install python3-venv")


def install(pip_arguments: list[str]) -> None:
    """Install packages into .venv with pip. Its output goes to LOG."""
    pip = [PYTHON, "-m", "pip", "--disable-pip-version-check", "--no-input", "--retries", "2", "install"]
    with LOG.open("w") as log:
        if subprocess.run([*pip, *pip_arguments], stdout=log, stderr=log, check=False).returncode:
            sys.exit(f"bin/setup: cannot install the dependencies (no network?); pip's output is in {LOG}")


if __name__ == "__main__":
    main(sys.argv[1:])
