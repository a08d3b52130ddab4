"""``benchmarks/strategies.py`` compares what strategies cost."""

import json
import subprocess
import sys
from pathlib import Path

from helpers.pipelines import pipeline_store

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "strategies.py"


def test_shapes_of_the_same_chunks_train_the_same_and_send_what_the_formulas_say(tmp_path: Path) -> None:
    store = pipeline_store(tmp_path)
    options = ["--hidden", "4", "--layers", "2", "--epochs", "2", "--shape", "1x1x4", "--shape", "2x1x4", "--json"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--store", str(store), "--work", str(tmp_path / "work"), *options],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    alone, two = json.loads(done.stdout)["shapes"]
    assert alone["weights"] == two["weights"]
    assert alone["sent"]["boundary"] == 0
    assert two["sent"] == two["foretold"]
    assert two["sent"]["boundary"] == 2 * 120 * 8 * 4  # gcnii's rows travel with the encoder's
    assert not list((tmp_path / "work").iterdir())
