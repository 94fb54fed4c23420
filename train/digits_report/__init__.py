"""The page of `train/digits.py`: networks, and a module for each step."""
