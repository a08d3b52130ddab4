"""What every test runs under."""

import os

# As the program itself sets them; they are read when torch loads, so before any test module is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
