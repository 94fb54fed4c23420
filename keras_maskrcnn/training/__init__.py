"""Tools around `model.fit`: optimizer, schedules, callbacks, alternating training; each imported on first use."""

from keras_maskrcnn.lazy import exports

_MODULES = {
    "AdamW": "adamw",
    "SGD": "sgd",
    "CocoEval": "callbacks",
    "Cosine": "schedules",
    "EventLog": "event_log",
    "LRFinder": "lr_finder",
    "OneCycle": "schedules",
    "SkippedSteps": "callbacks",
    "StepLR": "schedules",
    "Steps": "schedules",
    "WarmUp": "schedules",
    "alternate": "alternating",
    "class_weights": "class_weights",
    "layer_rates": "rates",
    "paper_schedule": "schedules",
    "propose_anchors": "anchor_proposal",
    "warmup_cosine": "schedules",
    "warmup_steps": "schedules",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = exports(__name__, _MODULES)
