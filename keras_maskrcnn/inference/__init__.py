"""Inference: image → canvas → network → image, for a model and for a SavedModel alike.

Reading order: `placement` (one resize rule), `predictor` (batching, running, decoding), `tiles` (of large images),
`export` and `saved_model`.
Nothing here imports models, training or evaluation.
"""
