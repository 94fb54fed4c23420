"""The page of the service in headless Chromium, with models whose answers are known."""

import contextlib
import io
import json
import shutil
import threading
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn.heads.detection import Detection
from keras_maskrcnn.heads.outputs import Detections, Output
from keras_maskrcnn.inference.placement import Placement, Resize
from keras_maskrcnn.inference.predictor import Predictor

pytest.importorskip("fastapi", reason="needs the extra serve")
uvicorn = pytest.importorskip("uvicorn", reason="needs the extra serve")
webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from keras_maskrcnn.serve import Settings, create_app
from keras_maskrcnn.serve.server import bound

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHROMEDRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and CHROMEDRIVER), reason="needs chromium and chromedriver")

HEIGHT, WIDTH = 120, 160
BOXES = np.array([[10, 10, 70, 70], [20, 20, 40, 40], [90, 20, 140, 60], [90, 70, 140, 110]], "float32")
SCORES = np.array([0.95, 0.8, 0.6, 0.3], "float32")
INTERACTIVE = ("button", "slider", "checkbox", "combobox")


class FakeModel:
    """A `Detector` that finds the same in every image, and counts its calls."""

    def __init__(self, class_names, schema, **arrays):
        self.class_names, self.schema, self.arrays, self.calls = class_names, schema, arrays, 0
        self.predictor = Predictor(None, Placement((64, 64), Resize(), 1), schema, Detection())
        self.image_type = self.predictor.placement.image_type

    def detect(self, images, **options):
        self.calls += 1
        return [Detections(self.arrays, self.schema) for _ in images]


def squares():
    """Masks of the boxes: the first has a hole of 10 x 10 pixels."""
    masks = np.zeros((len(BOXES), HEIGHT, WIDTH), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, BOXES.astype(int), strict=True):
        mask[y1:y2, x1:x2] = True
    masks[0, 50:60, 50:60] = False
    return masks


def fake_models():
    values = (Output("boxes", "boxes"), Output("labels"), Output("scores"), Output("masks", "box_masks"))
    points = (Output("keypoints", "points"), Output("keypoint_scores"))
    regions = np.zeros((HEIGHT, WIDTH), "uint8")
    regions[30:, 40:80], regions[:20, 100:] = 1, 2
    return {
        "squares": FakeModel(
            ["disc", "cube"],
            (*values, *points),
            boxes=BOXES,
            labels=np.array([1, 1, 2, 2]),
            scores=SCORES,
            masks=squares(),
            keypoints=np.array([[[x1 + 1, y1 + 2, 1], [x1, y1, 1]] for x1, y1, *_ in BOXES], "float32"),
            keypoint_scores=np.tile(np.array([3, 1], "float32"), (len(BOXES), 1)),
        ),
        "regions": FakeModel(["road", "sky"], (Output("semantic", "map"),), semantic=regions),
    }


@pytest.fixture(scope="module")
def service():
    """Address of the service, and its models."""
    models = fake_models()
    with bound("127.0.0.1", 0) as taken:
        server = uvicorn.Server(uvicorn.Config(create_app(models, Settings()), log_level="warning"))
        thread = threading.Thread(target=server.run, args=([taken],))
        thread.start()
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/", models
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium, whose downloads are in its attribute `downloads`."""
    folder = tmp_path_factory.mktemp("downloads")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "window-size=1280,900"):
        options.add_argument(f"--{argument}")
    options.add_experimental_option("prefs", {"download.default_directory": str(folder)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(CHROMEDRIVER))
    chrome.downloads = folder
    yield chrome
    chrome.quit()


@pytest.fixture
def page(browser, service):
    """A `Page` without a photo. The browser must not report any error while it is used."""
    browser.get(service[0])
    page = Page(browser, service[1])
    page.until(lambda: page.text("finds"))
    yield page
    failures = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert [message for message in failures if "status of 4" not in message] == []


class Page:
    """What a person does with the page, and sees of it."""

    def __init__(self, browser, models):
        self.browser, self.models = browser, models

    def until(self, condition):
        """Waits until a condition holds, and returns its value."""
        return WebDriverWait(self.browser, 20, poll_frequency=0.05).until(lambda _: condition())

    def at(self, name):
        return self.browser.find_element(By.ID, name)

    def text(self, name):
        return self.at(name).text

    def rows(self):
        """Accessible names of the objects in the list."""
        return [row.accessible_name for row in self.browser.find_elements(By.CSS_SELECTOR, "#objects button:not(.off)")]

    def lit(self):
        """Indices of the areas that are highlighted."""
        return [
            int(area.get_dom_attribute("data-index"))
            for area in self.browser.find_elements(By.CSS_SELECTOR, "#drawing.lit .area.on")
        ]

    def upload(self, path):
        self.at("file").send_keys(str(path))

    def show(self, path):
        """Uploads a photo and waits for its objects."""
        self.upload(path)
        self.until(lambda: self.text("count"))

    def hover(self, x, y):
        """Moves the pointer to a pixel of the photo."""
        stage = self.at("stage")
        scale = stage.size["width"] / WIDTH
        move = webdriver.ActionChains(self.browser, duration=0)
        move.move_to_element_with_offset(
            stage, round((x - WIDTH / 2) * scale), round((y - HEIGHT / 2) * scale)
        ).perform()

    def press(self, *keys):
        webdriver.ActionChains(self.browser).send_keys(*keys).perform()

    def focused(self):
        return self.browser.switch_to.active_element

    def download(self, button, name):
        """Clicks a button and returns the bytes of the file of this name."""
        self.at(button).click()
        file = self.browser.downloads / name
        self.until(lambda: file.is_file() and file.stat().st_size)
        content = file.read_bytes()
        file.unlink()
        return content

    @contextlib.contextmanager
    def viewport(self, width, height):
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": True}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        yield
        self.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    def accessible(self):
        """(role, name) of all that the accessibility tree has."""
        nodes = self.browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        return [(node["role"]["value"], node["name"]["value"]) for node in nodes if "name" in node]


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3)).astype("uint8")


@pytest.fixture
def photo(tmp_path, pixels):
    path = tmp_path / "street view.png"
    Image.fromarray(pixels).save(path)
    return path


def test_objects_light_up_and_are_filtered_without_a_request(page, photo):
    page.show(photo)
    before = page.models["squares"].calls
    assert page.text("count") == "3 of 4 shown"
    assert page.rows()[0] == "1: disc, score 0.95, area 3,500 px"
    assert page.text("classes").split() == ["cube", "1", "disc", "2"]

    points = page.browser.find_elements(By.CSS_SELECTOR, "#drawing .mark:not(.off) circle")
    assert {(int(p.get_dom_attribute("cx")), int(p.get_dom_attribute("cy"))) for p in points} == {
        (11, 12),
        (21, 22),
        (91, 22),
    }

    page.hover(12, 12)
    assert page.lit() == [0]
    assert page.text("about") == "disc · score 0.95 · area 3,500 px (18.2 %)"
    page.hover(30, 30)
    assert page.lit() == [1]  # the smallest under the pointer
    page.hover(55, 55)
    assert page.lit() == []  # a hole
    page.hover(100, 90)
    assert page.lit() == []  # an object with a lower score

    page.at("score").send_keys(Keys.ARROW_LEFT * 30)
    assert page.text("count") == "4 of 4 shown"
    page.hover(100, 91)
    assert page.lit() == [3]
    page.at("score").send_keys(Keys.ARROW_RIGHT * 60)
    assert page.text("count") == "2 of 4 shown"
    page.browser.find_element(By.CSS_SELECTOR, "#classes input[value=disc]").click()
    assert page.text("count") == "0 of 4 shown"
    assert page.rows() == []
    assert page.models["squares"].calls == before


def test_keyboard_and_screen_reader(page, photo):
    assert ("button", "Choose a photo") in page.accessible()
    page.press(Keys.TAB)
    assert page.focused().accessible_name == "Model"
    page.show(photo)

    while page.focused().get_dom_attribute("data-index") is None:
        page.press(Keys.TAB)
    assert page.lit() == [0]
    page.press(Keys.ARROW_DOWN, Keys.ENTER, Keys.TAB)
    assert page.lit() == [1]  # it was selected, and stays lit without the focus
    page.press(Keys.ESCAPE)
    assert page.lit() == []

    tree = page.accessible()
    assert {name for role, name in tree if role == "slider"} == {"Min. score", "Opacity", "Zoom"}
    assert {name for role, name in tree if role == "checkbox"} == {"cube 1", "disc 2", "Masks", "Boxes", "Labels"}
    assert {("group", "Classes"), ("group", "Drawing"), ("group", "Download"), ("list", "Objects")} <= set(tree)
    assert ("image", "street view.png, objects: 3. disc, cube") in tree
    assert [role for role, name in tree if role in INTERACTIVE and not name] == []

    page.at("zoom").send_keys(Keys.END)
    page.browser.find_element(By.CSS_SELECTOR, "#objects button").send_keys(Keys.END)
    assert page.lit() == [2]
    left, top, width, height = page.browser.execute_script(
        "const {scrollLeft, scrollTop, clientWidth, clientHeight} = document.getElementById('view');"
        "return [scrollLeft, scrollTop, clientWidth, clientHeight];"
    )
    scale = page.at("stage").size["width"] / WIDTH
    assert left < scale * 115 < left + width
    assert top < scale * 40 < top + height


def test_downloads(page, photo, pixels):
    page.show(photo)
    result = json.loads(page.download("save-json", "street view.json"))
    assert (result["file"], result["model"], result["width"]) == ("street view.png", "squares", WIDTH)
    assert [one["score"] for one in result["objects"]] == [0.95, 0.8, 0.6]

    overlay = np.asarray(
        Image.open(io.BytesIO(page.download("save-overlay", "street view_overlay.png"))).convert("RGB")
    )
    assert overlay.shape == pixels.shape
    changed = (overlay != pixels).any(-1)
    assert changed[25:55, 95:135].all()
    assert not changed[80:, :80].any()

    with zipfile.ZipFile(io.BytesIO(page.download("save-cut-outs", "street view_cut_outs.zip"))) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        first = np.asarray(Image.open(archive.open(names[0])))
    assert names == [f"street view_00{number}.png" for number in (1, 2, 3)]
    inside = squares()[0, 10:70, 10:70]
    np.testing.assert_array_equal(first[..., 3] > 0, inside)
    np.testing.assert_array_equal(first[inside, :3], pixels[10:70, 10:70][inside])

    page.hover(100, 30)
    webdriver.ActionChains(page.browser).click().perform()
    one = Image.open(io.BytesIO(page.download("cut-out", "street view_003.png")))
    assert one.size == (50, 40)


def test_maps_of_classes_and_another_model(page, photo):
    page.show(photo)
    model = page.at("model")
    model.send_keys("regions")
    page.until(lambda: page.text("count") == "2 of 2 shown")
    assert page.rows() == ["1: road, area 3,600 px", "2: sky, area 1,200 px"]
    page.hover(60, 100)
    assert page.lit() == [0]
    page.hover(60, 20)
    assert page.lit() == []
    page.hover(150, 10)
    assert page.lit() == [1]


def test_phone(page, tmp_path, pixels):
    """A photo that was taken with a turned phone is shown upright, in a narrow window."""
    exif = Image.Exif()
    exif[0x0112] = 6  # rows are columns
    turned = tmp_path / "turned.jpg"
    Image.fromarray(np.ascontiguousarray(np.rot90(pixels))).save(turned, exif=exif)
    with page.viewport(360, 740):
        page.show(turned)
        width = page.browser.execute_script("return document.documentElement.scrollWidth")
        stage = page.at("stage").size
    assert width == 360
    assert stage["width"] / stage["height"] == pytest.approx(WIDTH / HEIGHT, rel=0.02)


@pytest.mark.parametrize(
    ("kind", "field"), [("DragEvent('drop'", "dataTransfer"), ("ClipboardEvent('paste'", "clipboardData")]
)
def test_a_photo_can_be_dropped_or_pasted(page, photo, kind, field):
    page.browser.execute_script(
        "const data = new DataTransfer();"
        "data.items.add(new File([Uint8Array.from(arguments[0])], 'photo.png', {type: 'image/png'}));"
        f"document.body.dispatchEvent(new {kind}, {{{field}: data, bubbles: true, cancelable: true}}));",
        list(photo.read_bytes()),
    )
    page.until(lambda: page.text("count") == "3 of 4 shown")
    assert page.text("count") == "3 of 4 shown"


def test_a_format_that_browsers_do_not_display(page, tmp_path, pixels):
    path = tmp_path / "scan.tiff"
    Image.fromarray(pixels).save(path)
    page.show(path)
    assert page.text("count") == "3 of 4 shown"
    assert not page.at("photo").is_displayed()
    page.hover(100, 30)
    assert page.lit() == [2]


def test_errors_are_one_line(page, photo, tmp_path):
    page.show(photo)
    broken = tmp_path / "broken.png"
    broken.write_bytes(photo.read_bytes()[:60])
    page.upload(broken)
    line = page.until(lambda: page.text("error"))
    assert line.startswith("broken.png: the image ")
    assert page.at("error").aria_role == "alert"
    assert page.at("welcome").is_displayed()
    page.upload(photo)
    page.until(lambda: page.at("panel").is_displayed())
    assert page.text("error") == ""


def test_a_request_can_be_cancelled(page, photo, monkeypatch):
    answer = threading.Event()
    squares_of = FakeModel.detect

    def slow(self, images, **options):
        answer.wait(20)
        return squares_of(self, images, **options)

    monkeypatch.setattr(FakeModel, "detect", slow)
    page.upload(photo)
    page.until(lambda: page.text("phase") == "Finding objects")
    page.at("cancel").click()
    answer.set()
    page.until(lambda: page.at("welcome").is_displayed())
    time.sleep(0.2)
    assert not page.at("panel").is_displayed()
    assert page.text("error") == ""
