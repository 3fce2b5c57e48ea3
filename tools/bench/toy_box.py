"""A daemon with a package that no configuration can name. ``toy_box.py CONFIG FOLDER_OF_THE_PACKAGE``."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from appliance.config import load_config
from appliance.daemon import Daemon


def main() -> None:
    """Run until SIGTERM."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    Daemon(load_config(Path(sys.argv[1])), trusted_folders=[Path(sys.argv[2])]).run()


if __name__ == "__main__":
    main()
