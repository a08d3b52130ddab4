"""What every test runs under."""

import os

# As the program itself sets it; OpenMP reads it when torch loads, so before any test module is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
