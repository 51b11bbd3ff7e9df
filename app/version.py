"""The version of this release. `setup.cfg` reads it from here."""

from typing import Final

VERSION: Final = "1.0.0"
