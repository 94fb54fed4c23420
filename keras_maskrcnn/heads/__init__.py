"""Heads: one file each, with options, layer, ground truth, assignment, targets, losses, outputs and published names.

Reading order: `outputs` (the schema of a model's outputs), `detection` (thresholds and the final boxes),
`ground_truth`, `anchors`, `proposals`, `rpn`, `region_head` (base of the heads that work on RoIs), `box`, `mask`,
`keypoint`, `map_head` (base of the heads that work on whole images), `pixel_head` (base of those that classify pixels),
`semantic`, `fcn`.
"""
