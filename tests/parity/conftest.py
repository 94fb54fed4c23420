"""Lets the tests here import the modules beside them, which the scripts import in the same way."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
