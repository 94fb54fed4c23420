"""Parts of `ablations.py`: the variants, the paper's tables, the results of a run, and their comparison."""
