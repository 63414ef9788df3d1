"""Benchmarks are scripts that import each other by plain name, as Python lets scripts of one folder do; so do their tests."""

import sys

from tests.conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
