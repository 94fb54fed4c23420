"""What the routes answer to valid requests."""

import io
import re

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_tools
from serving import PNG, Model, encoded, square

from keras_maskrcnn import visualize
from keras_maskrcnn.data.run_lengths import run_lengths


def predict(client, image, path="/v1/predict", **query):
    response = client.post(path, content=encoded(image), headers=PNG, params=query)
    assert response.status_code == 200, response.text
    return response.json()


def test_objects_are_in_pixels_of_the_image(client):
    found = predict(client, square(x=4, y=10, side=12, score=0.8))
    assert (found["model"], found["width"], found["height"]) == ("squares", 32, 32)
    (thing,) = found["objects"]
    assert (thing["label"], thing["class"], thing["score"]) == (1, "square", 0.8)
    assert thing["box"] == [4, 10, 16, 22] and thing["area"] == 144
    assert set(found["seconds"]) == {"queue", "network"}


@pytest.mark.parametrize("masks", ["polygons", "rle"])
def test_masks_decode_to_the_pixels_of_the_object(client, masks):
    (thing,) = predict(client, square(x=4, y=10, side=12), masks=masks)["objects"]
    drawn = mask_tools.decode(run_lengths(thing["segmentation"], (32, 32)))
    expected = np.zeros((32, 32), bool)
    expected[10:22, 4:16] = True
    np.testing.assert_array_equal(drawn, expected)


def test_masks_can_be_left_out(client):
    (thing,) = predict(client, square(), masks="none")["objects"]
    assert "segmentation" not in thing and thing["area"] == 64


def test_an_empty_image_has_no_object(client):
    assert predict(client, np.zeros((20, 30, 3), np.uint8))["objects"] == []


def test_the_score_of_the_request_counts_before_that_of_the_service_and_of_the_model(start):
    image = square(score=0.6)
    assert len(predict(start(Model()), image)["objects"]) == 1
    assert len(predict(start(Model(), score=0.7), image)["objects"]) == 0
    assert len(predict(start(Model(), score=0.7), image, score=0.5)["objects"]) == 1


def test_the_answer_follows_the_orientation_of_the_photo(client):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned by a quarter
    image = square(x=0, y=2, side=4, size=(16, 32))
    image[8:, :8] = 100  # the score, in the upper left corner of the upright image
    content = encoded(image, "JPEG", exif=exif, quality=95, subsampling=0)
    found = client.post("/v1/predict", content=content, headers={"content-type": "image/jpeg"}, params={"score": 0})
    found = found.json()
    assert (found["width"], found["height"]) == (16, 32)
    (thing,) = found["objects"]  # rows 2 to 6 from the top become columns 10 to 14
    np.testing.assert_allclose(thing["box"], [10, 0, 14, 4], atol=1)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "BMP", "JPEG"])
def test_bytes_of_no_stated_kind_are_recognised(client, kind):
    response = client.post("/v1/predict", content=encoded(square(), kind))
    assert response.status_code == 200 and response.json()["width"] == 32


@pytest.mark.parametrize("ask", [{"params": {"format": "png"}}, {"headers": {"accept": "image/png"}}])
def test_an_overlay_is_the_drawing_of_the_library(client, model, ask):
    image = square()
    response = client.post("/v1/predict", content=encoded(image), **ask)
    assert response.headers["content-type"] == "image/png"
    drawn = np.asarray(Image.open(io.BytesIO(response.content)))
    expected = visualize.draw(image, model.detect(image), ["square"], scale=visualize.fitting_scale(image))
    np.testing.assert_array_equal(drawn, expected)


def test_a_form_of_files_has_one_result_each_and_a_bad_file_does_not_stop_the_others(client):
    parts = [("a", encoded(square(x=2))), ("b", b"no image"), ("c", b""), ("d", encoded(square(x=20)))]
    response = client.post("/v1/predict", files=[("file", (name, content)) for name, content in parts])
    assert response.status_code == 200
    first, second, third, last = response.json()["results"]
    assert first["objects"][0]["box"][0] == 2 and last["objects"][0]["box"][0] == 20
    assert "no image in a format that is read" in second["error"] and third == {"error": "the file is empty"}


def test_an_overlay_is_of_one_file(client):
    two = [("file", ("a", encoded(square())))] * 2
    response = client.post("/v1/predict", files=two, params={"format": "png"})
    assert response.status_code == 400 and "one image" in response.json()["error"]
    assert client.post("/v1/predict", files=two[:1], params={"format": "png"}).headers["content-type"] == "image/png"


def test_models_are_chosen_by_name_and_the_first_is_the_default(start):
    client = start({"one": Model(["a"]), "two": Model(["b"])})
    described = client.get("/v1/models").json()
    assert [(model["name"], model["default"], model["classes"]) for model in described] == [
        ("one", True, ["a"]),
        ("two", False, ["b"]),
    ]
    assert described[0]["score_threshold"] == 0.5
    answers = [
        predict(client, square(), f"/v1/{path}") for path in ("predict", "models/one/predict", "models/two/predict")
    ]
    assert [answer["model"] for answer in answers] == ["one", "one", "two"]
    assert [answer["objects"][0]["class"] for answer in answers] == ["a", "a", "b"]
    response = client.post("/v1/models/three/predict", content=encoded(square()), headers=PNG)
    assert response.status_code == 404 and "the models are one, two" in response.json()["error"]


def test_health_names_the_models_and_ends_with_the_service(client):
    assert client.get("/health").json() == {"status": "ok", "models": ["squares"]}
    client.service.stopping = True
    response = client.get("/health")
    assert response.status_code == 503 and response.json()["status"] == "stopping"
    assert client.post("/v1/predict", content=encoded(square())).status_code == 503


def test_metrics_count_requests_images_and_objects(client):
    predict(client, square())
    predict(client, square(score=0.1))
    client.post("/v1/predict", content=b"no image")
    client.get("/somewhere/else")
    lines = dict(line.rsplit(" ", 1) for line in client.get("/metrics").text.splitlines() if line[0] != "#")
    count = 'keras_maskrcnn_requests_total{method="%s",path="%s",status="%d"}'
    assert lines[count % ("POST", "/v1/predict", 200)] == "2.0"
    assert lines[count % ("POST", "/v1/predict", 400)] == "1.0"
    assert lines[count % ("GET", "other", 404)] == "1.0"
    assert lines['keras_maskrcnn_images_total{model="squares"}'] == "2.0"
    assert lines['keras_maskrcnn_objects_total{model="squares"}'] == "1.0"
    assert lines["keras_maskrcnn_places_taken"] == "0.0"
    assert float(lines["process_resident_memory_bytes"]) > 1e6


def test_the_page_and_the_documentation_load_nothing_from_elsewhere(client):
    for path in ("/", "/docs"):
        response = client.get(path)
        assert response.status_code == 200 and response.headers["content-type"].startswith("text/html")
        assert not re.search(r"(src|href)=.https?://", response.text)
    assert "POST /v1/predict" in client.get("/docs").text and "max_detections" in client.get("/docs").text


def test_answers_are_as_the_description_states(client):
    from keras_maskrcnn.serve import schemas

    schemas.Result.model_validate(predict(client, square()))
    schemas.Result.model_validate(predict(client, square(), masks="rle"))
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) == {"/health", "/metrics", "/v1/models", "/v1/predict", "/v1/models/{name}/predict"}
    assert {"200", "400", "408", "413", "415", "429", "503", "504"} <= set(paths["/v1/predict"]["post"]["responses"])
