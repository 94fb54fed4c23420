"""`predict --shard` and `join`, with a model that finds one object: the box of all pixels that are not black."""

import errno
import hashlib
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from keras_maskrcnn.cli import common, main, pictures, predict, shards
from keras_maskrcnn.cli.inputs import Listing, Source
from keras_maskrcnn.cli.line_file import LineFile
from keras_maskrcnn.cli.progress import Tally
from keras_maskrcnn.data.image_type import RGB
from keras_maskrcnn.heads.detection import OUTPUTS
from keras_maskrcnn.heads.outputs import Detections, Output

SCHEMA = (*OUTPUTS, Output("masks", "box_masks"))
ROOT = pathlib.Path(__file__).parents[1]
SECONDS = 600  # until a process counts as hung


class Bright:
    """Notes the number of the images that it sees."""

    class_names, schema, image_type, seen = ("thing",), SCHEMA, RGB, 0

    def detect_each(self, images, **options):
        for image in images:
            type(self).seen += 1
            mask = image.any(axis=2)
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            arrays = {"boxes": np.float32([box]), "labels": np.int32([1]), "scores": np.float32([0.75])}
            yield Detections({**arrays, "masks": mask[None]}, SCHEMA)


def save(path, number):
    """An image of 16 x 12 pixels with a rectangle of `number` x 2."""
    image = np.zeros((12, 16, 3), np.uint8)
    image[3:5, 1 : 1 + number] = 200
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current directory: 12 photos, six of them in a folder inside, and a file that is none."""
    monkeypatch.setattr(predict, "load", lambda path: Bright())
    monkeypatch.setattr(Bright, "seen", 0)
    monkeypatch.chdir(tmp_path)
    for number in range(12):
        save(f"photos/{'more/' * (number % 2)}{number:02d}.png", number + 1)
    pathlib.Path("photos/bad.png").write_text("not an image")
    return tmp_path


def run(*words, shard="1/1", out="out", code=0):
    words = words or ("photos", "--recursive")
    assert main(["predict", *map(str, words), "--model", "none", "--output", out, "--shard", shard]) == code


def run_all(shard="1/1", out="out", *words):
    """`run` whatever the exit code, which is 2 if the file that is no photo is read."""
    command = ["predict", "photos", "--recursive", "--model", "none", "--output", out, "--shard", shard]
    assert main([*command, *words]) in (0, 2)


def join(*words, code=0):
    assert main(["join", "out", "--output", "found.json", *words]) == code
    return json.loads(pathlib.Path("found.json").read_text()) if code == 0 else None


def lines_of(path):
    return [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]


def records_of(pattern="out/*.jsonl"):
    """All records, without the headers and the marks at the end."""
    contents = [content for path in sorted(pathlib.Path().glob(pattern)) for content in lines_of(path)]
    return [content for content in contents if "file_name" in content]


def name_of(record):
    return record["file_name"], record.get("frame", -1)


# The split ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["17/16", "0/16", "x", "3/0", "-1/16", "3/16/2", "3", "1.0/2", "", "²/3"])
def test_a_shard_that_does_not_exist(folder, capsys, text):
    assert main(["predict", "photos", "--model", "none", "--output", "out", f"--shard={text}"]) == 2
    reason = "must be one of 1/N to N/N, such as 3/16 for the third of 16"
    assert capsys.readouterr().err == f"error: --shard {text}: {reason}\n"
    assert not pathlib.Path("out").exists()


def test_shards_are_disjoint_complete_and_of_similar_size():
    sources = [Source(pathlib.Path(f"photos/{number:06d}.jpg")) for number in range(4000)]
    every = [shards.Shard(number, 16) for number in range(1, 17)]
    counts = [[shard.holds(source) for source in sources] for shard in every]
    assert (np.sum(counts, axis=0) == 1).all()
    assert np.abs(np.sum(counts, axis=1) - 250).max() < 4 * 250**0.5  # four standard deviations


def test_the_path_decides_on_every_machine():
    name = "photos/größe.jpg"
    expected = int(hashlib.blake2b(name.encode(), digest_size=16).hexdigest(), 16) % 16 + 1
    path = pathlib.Path("./photos//größe.jpg")
    assert [n for n in range(1, 17) if shards.Shard(n, 16).holds(Source(path))] == [expected]
    assert shards.digest("a\\b.jpg") == shards.digest("a/b.jpg")
    shards.digest(os.fsdecode(b"\xff.jpg"))  # a name that is no text


def test_names_sort_as_their_numbers():
    assert [shards.Shard.of(text).file for text in ("3/16", "16/16", "1/1")] == [
        "shard-03-of-16.jsonl",
        "shard-16-of-16.jsonl",
        "shard-1-of-1.jsonl",
    ]


@pytest.mark.parametrize("words", [("photos", "--recursive"), ("photos/**/*.png",), ("photos", "photos/more"), ("-",)])
def test_the_shards_together_are_the_whole(folder, monkeypatch, words):
    listed = sorted(str(path) for path in pathlib.Path("photos").rglob("*.png"))
    for number in (1, 2, 3):
        monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(listed)))
        has_bad = shards.Shard(number, 3).holds(Source(pathlib.Path("photos/bad.png")))
        run(*words, shard=f"{number}/3", code=2 * has_bad)
    found = records_of()
    assert sorted(record["file_name"] for record in found) == listed
    assert len(list(pathlib.Path("out").iterdir())) == 3  # no overlays
    assert Bright.seen == 12


def test_records_by_hand(folder):
    run("photos/bad.png", "photos/04.png", code=2)
    header, start, bad, good, end = lines_of("out/shard-1-of-1.jsonl")
    assert header["shard"] == "1/1" and header["settings"]["INPUT"] == "photos/bad.png photos/04.png"
    assert bad == {
        "file_name": "photos/bad.png",
        "error": "cannot be read as an image (cannot identify image file 'photos/bad.png')",
    }
    assert start == {"starts": 1}
    (result,) = good.pop("results")
    assert good == {"file_name": "photos/04.png", "width": 16, "height": 12}
    assert result["bbox"] == [1, 3, 5, 2] and result["score"] == 0.75 and result["category_name"] == "thing"
    assert result["image_id"] == result["file_name"] == "photos/04.png"
    assert end == {"finished": True}


def test_names_of_a_folder_are_not_in_memory(tmp_path):
    """5,000 names as Python strings take 300 kB, as paths a megabyte."""
    for number in range(5000):
        (tmp_path / f"{number:08d}.jpg").touch()
    listing = Listing(False, Tally(), shards.Shard(1, 4))
    next(listing.sources([str(tmp_path)]))  # imports
    peaks = []
    for _ in range(2):  # in one Python may enlarge its table of interned strings, to which pathlib adds the names
        tracemalloc.start()
        count = sum(1 for _ in listing.sources([str(tmp_path)]))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert 1000 < count < 1500 and min(peaks) < 100_000


def test_digests_are_a_set(monkeypatch):
    monkeypatch.setattr(shards, "RECENT", 8)
    found, ours = shards.Digests(), [shards.digest(number) for number in range(50)]
    ours += [b"\0" * 16, b"\1" + b"\0" * 15]
    assert all(found.add(one) for one in ours)
    assert not any(found.add(one) for one in ours)
    assert found.add(shards.digest(50)) and found._sorted.nbytes == 16 * 48


# A restart ----------------------------------------------------------------------------------------------------------


def test_a_restart_does_what_is_left(folder, capsys):
    run(code=2)
    before = pathlib.Path("out/shard-1-of-1.jsonl").read_bytes()
    capsys.readouterr()
    run()
    assert pathlib.Path("out/shard-1-of-1.jsonl").read_bytes() == before and Bright.seen == 12
    printed = capsys.readouterr().out
    assert printed.startswith("out/shard-1-of-1.jsonl continues after 13 results, 1 of them failures\n")
    assert printed.endswith("0 images done, 0 failed\n")
    save("photos/new.png", 3)
    run()
    assert Bright.seen == 13 and records_of()[-1]["file_name"] == "photos/new.png"
    assert lines_of("out/shard-1-of-1.jsonl")[-1] == {"finished": True}


def test_what_failed_is_tried_again_if_asked(folder):
    run(code=2)
    save("photos/bad.png", 2)
    run("photos", "--recursive", "--retry-failed")
    assert Bright.seen == 13
    assert ["error" in record for record in records_of() if record["file_name"] == "photos/bad.png"] == [True, False]
    assert len(join()) == 13
    run("photos", "--recursive", "--retry-failed")
    assert Bright.seen == 13


def test_any_cut_of_the_file_is_repaired(folder):
    """After each number of bytes that a killed process or a power failure may leave."""
    run(code=2)
    path = pathlib.Path("out/shard-1-of-1.jsonl")
    whole, records = path.read_bytes(), sorted(records_of(), key=name_of)
    for size in [*range(0, len(whole), 211), len(whole) - 1]:
        for tail in (b"", b"\0" * 100):
            path.write_bytes(whole[:size] + tail)
            run_all()
            assert sorted(records_of(), key=name_of) == records, size
            assert lines_of(path)[-1] == {"finished": True}


def test_a_damaged_line_is_done_again(folder):
    run(code=2)
    path = pathlib.Path("out/shard-1-of-1.jsonl")
    whole = path.read_bytes().splitlines(keepends=True)
    lines = whole.copy()
    lines[4] = lines[4][:40] + b"\0" * 20 + lines[4][60:]
    lines[5] = b"[" * 100_000 + b"\n"
    path.write_bytes(b"".join(lines))
    run_all()
    undone = sum(b'"error"' not in line for line in whole[4:6])
    assert Bright.seen == 12 + undone and len(join()) == 12


@pytest.mark.parametrize(
    ("words", "shard", "reason"),
    [
        (["photos", "--score", "0.3"], "1/2", "{file} holds results with --score-threshold None (not 0.3): {remedy}"),
        (["photos", "--tiles", "8", "9"], "2/2", "{file} holds results with --tiles None (not [8, 9]): {remedy}"),
        (["other"], "1/2", "{file} holds results with INPUT photos (not other): {remedy}"),
        (["photos"], "1/3", "out holds results of 2 shards, not 3: {remedy}"),
    ],
)
def test_results_of_another_run_are_kept(folder, capsys, words, shard, reason):
    shutil.copytree("photos", "other")
    pathlib.Path("photos/bad.png").unlink()
    run("photos", shard="1/2")
    before = pathlib.Path("out/shard-1-of-2.jsonl").read_bytes()
    capsys.readouterr()
    run(*words, shard=shard, code=2)
    expected = reason.format(file="out/shard-1-of-2.jsonl", remedy="use another --output")
    assert capsys.readouterr().err == f"error: {expected}\n"
    assert [path.name for path in pathlib.Path("out").iterdir()] == ["shard-1-of-2.jsonl"]
    assert pathlib.Path("out/shard-1-of-2.jsonl").read_bytes() == before


def test_another_model_is_noticed_by_its_bytes(folder, capsys):
    pathlib.Path("none").write_bytes(b"one")
    run(code=2)
    shutil.copy("none", "same.onnx")
    assert common.fingerprint("none") == common.fingerprint("same.onnx")
    pathlib.Path("none").write_bytes(b"two")
    capsys.readouterr()
    run(code=2)
    first, second = (
        hashlib.sha256(hashlib.sha256(text).hexdigest().encode()).hexdigest()[:16] for text in (b"one", b"two")
    )
    expected = f"--model sha256 {first} (not sha256 {second}): use another --output"
    assert capsys.readouterr().err == f"error: out/shard-1-of-1.jsonl holds results with {expected}\n"


def test_another_file_of_that_name(folder, capsys):
    pathlib.Path("out").mkdir()
    for text in ("mine\n", "{}\n", '{"file_name": "a"}\n'):
        pathlib.Path("out/shard-1-of-1.jsonl").write_text(text)
        run(code=2)
        expected = "error: out/shard-1-of-1.jsonl: is no file of results of predict --shard\n"
        assert capsys.readouterr().err == expected
        assert pathlib.Path("out/shard-1-of-1.jsonl").read_text() == text


def test_two_processes_on_one_shard(folder, capsys):
    file = LineFile(pathlib.Path("out/shard-1-of-1.jsonl"))
    run(code=2)
    assert capsys.readouterr().err == "error: out/shard-1-of-1.jsonl: another process is writing this file\n"
    file.close()
    run(code=2)
    assert len(records_of()) == 13


def test_a_full_disk_is_one_line_and_the_run_continues_later(folder, capsys, monkeypatch):
    write, calls = os.write, []

    def limited(file, data):
        if len(data) > 100:  # not the console
            calls.append(len(data))
        if len(calls) > 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data[:50] if len(calls) == 6 else data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", limited)
        run("photos", "--recursive", code=2)
    assert "error: [Errno 28] No space left on device: 'out/shard-1-of-1.jsonl'\n" in capsys.readouterr().err
    assert 3 <= len(records_of()) <= 6  # whole lines only
    run_all()
    assert len(records_of()) == 13 and len(join()) == 12


APPEND = """
import pathlib, sys
from keras_maskrcnn.cli.line_file import LineFile
file = LineFile(pathlib.Path(sys.argv[1]))
known = [content["number"] for content in file.read()]
print("ready", flush=True)
for number in range(len(known), len(known) + 300):  # 90 MB, if nobody kills it
    file.append({"number": number, "text": "x" * 300_000})
"""


def test_a_killed_process_leaves_whole_lines(tmp_path):
    """Five processes are killed while they write lines of 300 kB; each continues where the last one stopped."""
    path = tmp_path / "lines.jsonl"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for _ in range(5):
        before = path.stat().st_size if path.exists() else 0
        with subprocess.Popen([sys.executable, "-c", APPEND, path], stdout=subprocess.PIPE, env=environment) as process:
            assert process.stdout.readline() == b"ready\n"
            while path.stat().st_size < before + 3_000_000 and process.poll() is None:
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
    file = LineFile(path)
    numbers = [content["number"] for content in file.read()]
    file.close()
    assert numbers == list(range(len(numbers))) and len(numbers) >= 45
    assert path.read_bytes().endswith(b'x"}\n')


@pytest.mark.slow
def test_a_run_that_is_killed_ends_with_the_results_of_an_undisturbed_one(tmp_path):
    """The command itself, with the model that ships with the package; the names come one by one, as those of `find`."""
    (tmp_path / "photos").mkdir()
    for number in range(12):
        noise = np.random.default_rng(number).integers(0, 40, (64, 96, 3), dtype=np.uint8)
        noise[20:40, 10 + number : 40 + number] = 220
        Image.fromarray(noise).save(tmp_path / "photos" / f"{number:02d}.png")
    (tmp_path / "photos" / "bad.png").write_text("not an image")
    names = [f"{path}\n" for path in sorted((tmp_path / "photos").iterdir())]
    options = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(ROOT)}, "text": True}
    words = [sys.executable, "-m", "keras_maskrcnn", "predict", "-", "--model", "nuclei", "--shard", "1/1", "--output"]
    killed = tmp_path / "killed" / "shard-1-of-1.jsonl"
    for given in (5, 9, 13):
        with subprocess.Popen([*words, "killed"], stdin=subprocess.PIPE, **options) as process:
            # The process waits for further names, so that it cannot end before it is killed.
            process.stdin.write("".join(names[:given]))
            process.stdin.flush()
            try:
                wait_for_records(killed, given - 3, process)  # of the last pictures, two wait for the next one
            finally:
                process.kill()
    finished = [
        subprocess.run([*words, output], input="".join(names), stdout=subprocess.PIPE, timeout=SECONDS, **options)
        for output in ("killed", "whole")
    ]
    assert [process.returncode for process in finished] == [2, 2]  # one is no photo
    assert f"{killed.relative_to(tmp_path)} continues after" in finished[0].stdout
    again, whole = (lines_of(tmp_path / name / killed.name) for name in ("killed", "whole"))
    assert again[0] == whole[0] and again[-1] == whole[-1] == {"finished": True}
    again, whole = ([line for line in lines if "file_name" in line] for lines in (again, whole))
    assert sorted(again, key=name_of) == sorted(whole, key=name_of) and len(whole) == 13


def wait_for_records(path, count, process):
    """Waits until a file of results has `count` records."""
    end = time.monotonic() + SECONDS
    while not path.exists() or path.read_bytes().count(b'\n{"file_name"') < count:
        assert process.poll() is None, f"the process has ended with exit code {process.returncode}"
        assert time.monotonic() < end, f"{path} has fewer than {count} records after {SECONDS} s"
        time.sleep(0.02)


def test_a_photo_at_which_the_process_ends_is_given_up(folder, monkeypatch):
    """The end of the process is that of Ctrl-C here; what a start leaves in the file is that of a crash."""

    class Crashing(Bright):
        def detect_each(self, images, **options):
            for image in images:
                if image.any(axis=(0, 2)).sum() == 5:
                    raise KeyboardInterrupt
                yield from Bright().detect_each([image])

    monkeypatch.setattr(predict, "load", lambda path: Crashing())
    pathlib.Path("photos/bad.png").unlink()
    run(code=130)  # after some others, or none
    counts = []
    for _ in range(4):
        counts.append(len(records_of()))
        if main(["predict", "photos", "--recursive", "--model", "none", "--output", "out", "--shard", "1/1"]) == 0:
            break
    assert counts[0] == counts[-1] and len(counts) in (3, 4)
    found = {record["file_name"]: record.get("error") for record in records_of()}
    assert len(found) == 12
    assert {name: error for name, error in found.items() if error} == {
        "photos/04.png": "the process ended 3 times at this file"
    }


# What can be divided ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--json", "a.json"], "--json is not possible with --shard, whose results `join` makes a COCO file of"),
        (["--csv", "a.csv"], "--csv is not possible with --shard, whose results `join` makes a COCO file of"),
        (["--cutouts"], "--cutouts is not possible with --shard, whose results `join` makes a COCO file of"),
        (["webcam"], "--shard: the camera webcam cannot be divided"),
        (["0"], "--shard: the camera 0 cannot be divided"),
    ],
)
def test_what_shards_cannot_do(folder, capsys, words, reason):
    run("photos", *words, code=2)
    assert capsys.readouterr().err == f"error: {reason}\n"


def test_retry_without_a_shard(folder, capsys):
    assert main(["predict", "photos", "--model", "none", "--output", "out", "--retry-failed"]) == 2
    expected = "error: --retry-failed continues the results of --shard, which is not given\n"
    assert capsys.readouterr().err == expected


def test_a_model_without_objects(folder, capsys, monkeypatch):
    monkeypatch.setattr(Bright, "schema", ())
    run("photos", code=2)
    assert capsys.readouterr().err == "error: --shard is about objects, and none finds none\n"


def test_files_of_a_list_fail_in_their_shard_only(folder, monkeypatch, capsys):
    names = ["photos/gone.png", "phone.heic", "photos/00.png"]
    for number in (1, 2, 3):
        monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(names)))
        main(["predict", "-", "--model", "none", "--output", "out", "--shard", f"{number}/3"])
    assert {record["file_name"]: record.get("error") for record in records_of()} == {
        "photos/gone.png": "no such file",
        "phone.heic": ".heic is not read; convert it to JPEG or PNG",
        "photos/00.png": None,
    }
    assert capsys.readouterr().err.count("error: ") == 2 and len(join()) == 1


def test_a_folder_that_is_missing_leaves_the_shard_unfinished(folder, capsys):
    run("photos/more", "photso", code=2)
    assert "error: photso: no such file or folder\n" in capsys.readouterr().err
    join(code=2)
    expected = "out/shard-1-of-1.jsonl is not finished: run its shard again, or give --partial"
    assert capsys.readouterr().err == f"error: {expected}\n"


def coco_file(folder):
    names = [str(path.relative_to("photos")) for path in sorted(pathlib.Path("photos").rglob("*.png"))]
    content = {
        "images": [{"id": 100 + i, "file_name": name, "height": 12, "width": 16} for i, name in enumerate(names)],
        "annotations": [],
        "categories": [{"id": 7, "name": "thing"}],
    }
    (folder / "photos" / "all.json").write_text(json.dumps(content))
    return content


def test_the_images_of_an_annotation_file(folder):
    pathlib.Path("photos/bad.png").unlink()
    content = coco_file(folder)
    for number in (1, 2):
        run("photos/all.json", "--annotations", "photos/all.json", shard=f"{number}/2")
    found = {result["file_name"]: (result["image_id"], result["category_id"]) for result in join()}
    assert found == {f"photos/{image['file_name']}": (image["id"], 7) for image in content["images"]}


def test_other_json_files_are_no_input(folder, capsys):
    pathlib.Path("via.json").write_text('{"a": {"filename": "00.png", "regions": [], "size": 1}}')
    run("via.json", code=2)
    assert capsys.readouterr().err.startswith("error: via.json: ")


def test_videos_continue_within(folder):
    pytest.importorskip("av", reason="the extra video is not installed")
    from keras_maskrcnn.data.video import VideoWriter

    image = np.zeros((32, 48, 3), np.uint8)
    image[8:20, 8:30] = 220
    writer = VideoWriter(folder / "clip.mp4", 5)
    for _ in range(6):
        writer.add(image)
    writer.close()
    run("clip.mp4", "photos/00.png", "--every", "2")
    whole = records_of()
    assert [name_of(record) for record in whole[:4]] == [("clip.mp4", n) for n in (0, 2, 4, -1)]
    assert whole[1]["results"][0]["image_id"] == "clip.mp4/000002" and whole[3]["end"] is True
    path = pathlib.Path("out/shard-1-of-1.jsonl")
    path.write_text("".join(f"{line}\n" for line in path.read_text().splitlines()[:3]))
    seen = Bright.seen
    run("clip.mp4", "photos/00.png", "--every", "2")
    assert records_of() == whole and Bright.seen == seen + 3
    assert len(join()) == 4


def test_failures_in_a_row_are_passed_on_before_the_next_picture():
    read = []

    def items():
        for number in range(1000):
            read.append(number)
            yield pictures.End(Source(pathlib.Path(str(number))), ValueError("unreadable"))
        yield pictures.Picture(Source(pathlib.Path("last")), 1, "last", "last", np.ones((4, 4, 3), np.uint8))

    found = pictures.detections(Bright(), items(), {})
    first, _ = next(found)
    assert first.source.path.name == "0" and len(read) == pictures.MOST_UNREAD
    *others, (last, result) = found
    assert len(others) == 999 and last.name == "last" and result["boxes"].tolist() == [[0, 0, 4, 4]]


def test_a_picture_that_the_model_fails_on_is_recorded(folder, monkeypatch):
    def detect_each(self, images, **options):
        for image in images:
            if image.any(axis=(0, 2)).sum() == 5:
                raise RuntimeError("no\nmemory")
            yield from Bright().detect_each([image])

    class Failing(Bright):
        pass

    Failing.detect_each = detect_each
    monkeypatch.setattr(predict, "load", lambda path: Failing())
    run(code=2)
    found = {record["file_name"]: record["error"] for record in records_of() if "error" in record}
    assert found.pop("photos/bad.png") and found == {"photos/04.png": "RuntimeError: no memory"}
    assert len(records_of()) == 13


# Joined -------------------------------------------------------------------------------------------------------------


def test_the_joined_results_are_those_of_one_run(folder, capsys):
    for number in range(1, 5):
        run_all(f"{number}/4")
    capsys.readouterr()
    joined = join()
    assert capsys.readouterr().out == "COCO results: found.json: 12 objects in 12 pictures, 1 failed\n"
    main(["predict", "photos", "--recursive", "--model", "none", "--output", "one", "--json", "one.json"])
    one = json.loads(pathlib.Path("one.json").read_text())
    for result in one:
        result["image_id"] = result["file_name"]
    assert sorted(joined, key=name_of) == sorted(one, key=name_of)


def test_what_is_missing_is_named(folder, capsys):
    join(code=2)
    assert capsys.readouterr().err == "error: out: no file shard-*-of-*.jsonl in it\n"
    run_all("2/4")
    capsys.readouterr()
    join(code=2)
    assert capsys.readouterr().err == "error: out lacks shard 1/4: run it, or give --partial\n"
    assert len(join("--partial")) == sum("results" in record for record in records_of())
    assert sorted(path.name for path in pathlib.Path().glob("found*")) == ["found.json"]


def test_shards_of_different_runs_are_not_joined(folder, capsys):
    main(["predict", "photos", "--model", "none", "--output", "a", "--shard", "1/2"])
    main(["predict", "photos", "--model", "none", "--output", "b", "--shard", "2/2", "--score", "0.9"])
    pathlib.Path("out").mkdir()
    shutil.copy("a/shard-1-of-2.jsonl", "out")
    shutil.copy("b/shard-2-of-2.jsonl", "out")
    capsys.readouterr()
    join(code=2)
    expected = "out/shard-2-of-2.jsonl holds results with --score-threshold 0.9 (not None): use another --output"
    assert capsys.readouterr().err == f"error: {expected}\n"


def test_join_needs_no_keras(folder):
    run("photos/00.png")
    code = "import sys; from keras_maskrcnn.cli import main; main(sys.argv[1:]); sys.exit('keras' in sys.modules)"
    words = [sys.executable, "-c", code, "join", "out", "--output", "found.json"]
    assert subprocess.run(words, env={**os.environ, "PYTHONPATH": str(ROOT)}).returncode == 0


def test_a_pipe_as_results_is_not_waited_for(folder, capsys):
    run("photos", code=2)
    path = pathlib.Path("out/shard-1-of-1.jsonl")
    path.unlink()
    os.mkfifo(path)
    for words in (
        ("join", "out", "--output", "found.json"),
        ("predict", "photos", "--shard", "1/1", "--output", "out"),
    ):
        assert main([*words, *(["--model", "m"] if words[0] == "predict" else [])]) == 2
        assert "is not a regular file" in capsys.readouterr().err


@pytest.mark.parametrize("line", [{"starts": "3"}, {"starts": [1]}, {"file_name": {}, "results": []}])
def test_lines_of_other_types_are_left_out(folder, line):
    run("photos", code=2)
    path = pathlib.Path("out/shard-1-of-1.jsonl")
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    before = len(records_of())
    run("photos")
    assert len(records_of()) == before


def test_results_that_are_no_list_are_named(folder, capsys):
    run("photos", code=2)
    path = pathlib.Path("out/shard-1-of-1.jsonl")
    path.write_text(path.read_text().replace('"results": [', '"results": 3, "rest": [', 1))
    assert main(["join", "out", "--output", "found.json"]) == 2
    assert "are no list" in capsys.readouterr().err
