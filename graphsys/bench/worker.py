"""The process that measures one part alone: python -m graphsys.bench.worker BENCH PART SETTING."""

import json
import sys
from collections.abc import Sequence

from graphsys.bench.registry import BENCHES
from graphsys.bench.setting import Setting
from graphsys.core.errors import GraphsysError
from graphsys.core.progress import SILENT


def main(argv: Sequence[str]) -> int:
    """Measure, print the figures as one JSON line; return the exit code."""
    bench, name, setting = argv
    part = BENCHES[bench].part(name)
    try:
        found = part.measure(Setting.from_dict(json.loads(setting)), SILENT)
    except GraphsysError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(found.as_dict()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
