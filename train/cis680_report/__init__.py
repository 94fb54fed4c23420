"""Parts of `train/cis680.py`: the data and arguments of a run, its trainings, the steps, and the page."""
