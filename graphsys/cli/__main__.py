"""``python -m graphsys.cli`` is the program ``graphsys``."""

import sys

from graphsys.cli.main import main

sys.exit(main())
