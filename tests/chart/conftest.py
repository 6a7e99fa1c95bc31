"""Nothing is written beside the tests."""

import sys

sys.dont_write_bytecode = True
