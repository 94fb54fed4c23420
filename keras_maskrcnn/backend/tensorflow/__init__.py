"""Implementations on TensorFlow. Import the submodules inside the functions that use them."""
