"""The query of a request, and what OpenAPI states of requests and answers."""

import typing

from pydantic import BaseModel, ConfigDict, Field

from keras_maskrcnn.serve.uploads import IMAGES, MULTIPART

Polygons = list[list[float]]
BINARY = {"schema": {"type": "string", "format": "binary"}}
FILES = {"type": "object", "properties": {"file": {"type": "array", "items": BINARY["schema"]}}}
BODY = {
    "requestBody": {
        "required": True,
        "content": {**{kind: BINARY for kind in IMAGES}, MULTIPART: {"schema": FILES}},
    }
}


class Asked(BaseModel):
    """The query of a prediction."""

    model_config = ConfigDict(extra="forbid")

    score: float | None = Field(None, ge=0, le=1, description="Minimum score; by default that of the model.")
    max_detections: int | None = Field(None, ge=1, le=1000, description="Maximum number of objects per image.")
    masks: typing.Literal["polygons", "rle", "none"] = Field(
        "polygons", description="Masks as COCO polygons, as COCO run-length code, or left out."
    )
    format: typing.Literal["json", "png"] | None = Field(
        None, description="JSON, or the image with the objects drawn on it; by default what `Accept` asks for."
    )


class RunLengths(BaseModel):
    """COCO's compressed run-length code of a mask."""

    size: tuple[int, int] = Field(description="Height and width of the image.")
    counts: str


class Object(BaseModel):
    """An object in an image."""

    model_config = ConfigDict(extra="allow", title="Object")

    label: int = Field(description="Number of the class, from 1.")
    name: str = Field(alias="class", description="Name of the class, or its number if the model has no names.")
    score: float
    box: tuple[float, float, float, float] = Field(description="x1, y1, x2, y2 in pixels of the upright image.")
    area: float = Field(description="Pixels of the mask, or of the box in models without masks.")
    segmentation: Polygons | RunLengths | None = Field(
        None, description="Polygons are flat lists x, y, … along the edges of the pixels."
    )
    keypoints: list[tuple[float, float, float]] | None = Field(
        None, description="x, y, 1 of each point; `keypoint_scores` are their scores."
    )


class Region(BaseModel):
    """The pixels of a class in a model of label maps."""

    label: int
    name: str = Field(alias="class")
    area: int
    segmentation: RunLengths


class Seconds(BaseModel):
    """Where the time went."""

    queue: float = Field(description="Seconds that the image waited for the network.")
    network: float = Field(description="Seconds of the batch that the image was in, with pasting of the masks.")


class Result(BaseModel):
    """The detections in an image."""

    model: str
    width: int
    height: int
    objects: list[Object]
    semantic: list[Region] | None = None
    seconds: Seconds


class Error(BaseModel):
    """Why a request or a file has no detections."""

    error: str


class Results(BaseModel):
    """The answers to the files of a multipart body, in their order."""

    results: list[Result | Error]


class Model(BaseModel):
    """A model of the service."""

    name: str
    classes: list[str] = Field(description="Names of the classes 1, 2, …; empty if the model has none.")
    default: bool = Field(description="Whether `/v1/predict` uses it.")
    outputs: list[str]
    score_threshold: float = Field(description="Minimum score of requests that state none.")


class Health(BaseModel):
    """Whether the service takes requests."""

    status: typing.Literal["ok", "stopping"]
    models: list[str]


REASONS = {
    400: "the image, the body or the query is not valid",
    404: "there is no such model",
    408: "the body did not arrive in time",
    413: "too many bytes, pixels or files",
    415: "the content type is not one of those above",
    429: "the queue is full; Retry-After states the seconds to wait",
    500: "the model failed",
    503: "the service is stopping",
    504: "the answer was not ready in time",
}
ERRORS = {status: {"model": Error, "description": reason} for status, reason in REASONS.items()}
ANSWERS = {
    200: {
        "model": Result | Results,
        "description": "The detections: of a multipart body those of each file.",
        "content": {"image/png": BINARY},
    },
    **ERRORS,
}
