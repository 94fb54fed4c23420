"""Pickles as data: arrays out of files that Python would have to be trusted to run, without running anything.

`safe_pickle` is the stack machine, `numpy_pickle` says what stands for NumPy's own globals, `npy` reads `.npy` files
that hold objects. The room imports nothing of ours, so that `data` may use it as `weights` does.
"""
