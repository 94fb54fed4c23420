"""A model behind HTTP: images in, detections as JSON or an overlay out. Needs the extra `serve`.

Reading order: `settings`, `errors` (why a request is refused), `uploads` (from a request to the bytes of files),
`images` (from bytes to pixels), `batching` (the queue before the network), `served` (a model), `answers` (from
detections to JSON or PNG), `schemas` (what OpenAPI states of both), `metrics`, `logs`, `docs_page`, `page`, `app` (the
routes), `server` (the process). Each name is imported on first use.
"""

from keras_maskrcnn.lazy import exports

_MODULES = {"Settings": "settings", "create_app": "app", "run": "server"}
__all__ = list(_MODULES)
__getattr__, __dir__ = exports(__name__, _MODULES)
