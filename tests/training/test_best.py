"""The file of the best epoch: which one it is, that it is complete, and a run that continues."""

import argparse
import json
import math

import keras
import numpy as np
import pytest

from keras_maskrcnn.training import best as module
from keras_maskrcnn.training.best import Best, chosen


@pytest.mark.parametrize(
    ("scores", "name", "figure"),
    [
        ({"bbox_AP": 0.6, "segm_AP": 0.4, "keypoints_AP": 0.9, "bbox_AP50": 1.0}, "mean of bbox_AP and segm_AP", 0.5),
        ({"bbox_AP": 0.6, "keypoints_AP": 0.9}, "bbox_AP", 0.6),
        ({"mean_IoU": 0.7, "pixel_accuracy": 0.9}, "mean_IoU", 0.7),
    ],
)
def test_the_score_depends_on_what_the_model_predicts(scores, name, figure):
    assert chosen(scores) == (name, pytest.approx(figure))


def test_without_a_score_there_is_no_figure():
    assert math.isnan(chosen({"per_class": {}})[1])


def small_model():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(keras.optimizers.SGD(1.0, momentum=0.5), "mse")
    model.optimizer.build(model.trainable_variables)
    return model


class Run:
    """Epochs whose figures are given; the weight is the number of the epoch."""

    def __init__(self, folder, done=0):
        (folder / "backup").mkdir(exist_ok=True)
        self.scores = argparse.Namespace(scores={}, current=True)
        self.model, self.best = small_model(), Best(folder, self.scores, done)
        self.best.set_model(self.model)
        self.epoch = done

    def __call__(self, *figures):
        for figure in figures:
            self.epoch += 1
            self.model.set_weights([np.full((1, 1), self.epoch, "float32")])
            self.model.optimizer.iterations.assign(10 * self.epoch)
            self.scores.current = figure is not None
            if figure is not None:
                self.scores.scores = {"bbox_AP": figure}
            self.best.on_epoch_end(self.epoch - 1)
        return self.best.found and (self.best.found["epoch"], self.best.found["figure"])


def weight(path):
    return float(keras.saving.load_model(path).get_weights()[0][0, 0])


def test_the_first_of_the_highest_is_kept(tmp_path):
    assert Run(tmp_path)(0.1, 0.5, 0.3, 0.5, None, math.nan) == (2, 0.5)
    assert weight(tmp_path / "best.keras") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup", "best.keras"]


def test_epochs_that_are_not_scored_do_not_count(tmp_path):
    run = Run(tmp_path)
    assert run(None, math.nan) is None and not run.best.path.exists()


def test_the_state_comes_back_with_the_optimizer(tmp_path):
    run = Run(tmp_path)
    run(0.1, 0.5, 0.3)
    run.best.load(run.model)
    assert run.model.get_weights()[0] == 2 and int(run.model.optimizer.iterations) == 20


def test_a_run_that_continues_keeps_the_best_so_far(tmp_path):
    Run(tmp_path)(0.1, 0.5, 0.3)
    assert Run(tmp_path, done=3)(0.4) == (2, 0.5)
    assert weight(tmp_path / "best.keras") == 2
    assert Run(tmp_path, done=4)(0.6) == (5, 0.6)
    assert weight(tmp_path / "best.keras") == 5
    assert Run(tmp_path)(None) is None  # from the start
    assert not (tmp_path / "best.keras").exists()


def test_a_kill_while_saving_leaves_the_file_of_before(tmp_path, monkeypatch):
    run = Run(tmp_path)
    run(0.1)

    def killed(model, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(module.keras.saving, "save_model", killed)
    with pytest.raises(KeyboardInterrupt):
        run(0.9)
    assert weight(tmp_path / "best.keras") == 1 and len(list(tmp_path.iterdir())) == 2
    assert json.loads((tmp_path / "backup" / "best.json").read_text())["epoch"] == 1


@pytest.mark.parametrize("damaged", ["best.keras", "backup/best.json"])
def test_a_damaged_file_of_the_best_epoch_is_printed_and_replaced(tmp_path, capsys, damaged):
    Run(tmp_path)(0.5, 0.25)
    (tmp_path / damaged).write_bytes((tmp_path / damaged).read_bytes()[:-7])
    run = Run(tmp_path, done=2)
    assert run.best.found is None
    [line] = capsys.readouterr().out.splitlines()
    assert str(tmp_path / damaged) in line and line.endswith(": the best epoch is chosen among the coming ones")
    assert run(0.375) == (3, 0.375) and weight(tmp_path / "best.keras") == 3
