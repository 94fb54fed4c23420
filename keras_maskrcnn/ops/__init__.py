"""Pure functions of `keras.ops`: no layers, no weights, no configuration.

Boxes are float32 `[..., 4]` as `x1, y1, x2, y2` in pixels of the network's input, continuous: pixel i covers
[i, i + 1), so the width of a box is `x2 - x1`. All functions compute in float32 with static shapes and run eagerly, in
graphs and under XLA, on every Keras backend.
"""
