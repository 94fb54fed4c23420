"""Optimizer, learning-rate schedules, callbacks and alternating training."""

from keras_maskrcnn.training.alternating import alternate
from keras_maskrcnn.training.callbacks import CocoEval, SkippedSteps
from keras_maskrcnn.training.event_log import EventLog
from keras_maskrcnn.training.schedules import Cosine, Steps, WarmUp, warmup_cosine, warmup_steps
from keras_maskrcnn.training.sgd import SGD

__all__ = [
    "SGD",
    "CocoEval",
    "Cosine",
    "EventLog",
    "SkippedSteps",
    "Steps",
    "WarmUp",
    "alternate",
    "warmup_cosine",
    "warmup_steps",
]
