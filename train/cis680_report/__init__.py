"""What `train/cis680.py` is made of: the page, its plots and answers, and the two parts of the assignment."""
