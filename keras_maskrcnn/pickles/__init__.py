"""Reads arrays from pickles without executing them.

`safe_pickle` is the stack machine, `numpy_pickle` defines replacements for NumPy's globals, `npy` reads `.npy` files of
objects. The package imports no other package of this project, so that both `data` and `weights` can use it.
"""
