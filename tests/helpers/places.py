"""Where things lie, for tests that start other processes or read the checkout."""

import pathlib

HELPERS = pathlib.Path(__file__).parent
ROOT = HELPERS.parents[1]
