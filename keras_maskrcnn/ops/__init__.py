"""Pure functions of `keras.ops`: no layers, no weights, no configuration.

Boxes are float32 `[..., 4]` as `x1, y1, x2, y2` in pixels of the network's input, continuous: pixel i covers
[i, i + 1), so a box's width is `x2 - x1`. Every function runs in float32 and with static shapes, eagerly, in a
graph, and under XLA, on every Keras backend.
"""
