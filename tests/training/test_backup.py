"""Backups of a training run: complete or not there, two generations, and all of the state."""

import itertools
import os
import resource
import signal
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

from keras_maskrcnn import MaskRCNN, data
from keras_maskrcnn.training.backup import Backup


def model(units=3):
    """A compiled model with a seed generator whose draws change the weights."""
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.5), keras.layers.Dense(units)])
    network.compile(keras.optimizers.Adam(0.1), "mse", run_eagerly=True)
    network.optimizer.build(network.trainable_variables)
    return network


def fit(network, *callbacks, **options):
    x, y = np.ones((8, 4), "float32"), np.ones((8, 3), "float32")
    network.fit(x, y, batch_size=4, shuffle=False, verbose=0, callbacks=list(callbacks), **options)
    return network


def state(network):
    return [np.array(v) for v in [*network.variables, *network.optimizer.variables]]


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(state(one), state(other), strict=True))


def test_a_restored_model_goes_on_as_if_it_had_not_stopped(tmp_path):
    keras.utils.set_random_seed(1)
    whole = fit(model(), epochs=3)
    keras.utils.set_random_seed(1)
    fit(model(), Backup(tmp_path), epochs=2)
    keras.utils.set_random_seed(2)
    resumed = model()
    assert Backup(tmp_path).restore(resumed) == 2
    assert same(fit(resumed, epochs=3, initial_epoch=2), whole)


def test_seed_generators_of_a_model_come_back(tmp_path):
    """The sampler's, and those of RoIAlign for random positions."""

    def tiny(seed):
        network = MaskRCNN(
            1, {"name": "resnet10", "width": 8}, fpn_channels=16, seed=seed,
            regions={"positions": "random"},
            box_stage={"width": 8}, mask_stage={"width": 8, "depth": 1},
        )  # fmt: skip
        network.compile(keras.optimizers.SGD(momentum=0.9))
        return network

    one, other = tiny(1), tiny(2)
    generators = len(one.variables) - len(one.weights)
    assert generators == 3 and not same(one, other)
    backup = Backup(tmp_path)
    backup.set_model(one)
    backup.on_epoch_end(0)
    assert Backup(tmp_path).restore(other) == 1
    assert same(one, other)


def test_the_last_two_epochs_are_kept_and_nothing_else(tmp_path):
    totals = np.array([1.5, 2.0])
    fit(model(), Backup(tmp_path, totals), epochs=4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch_0003.npz", "epoch_0004.npz"]
    restored = Backup(tmp_path, np.zeros(2))
    assert restored.epoch() == restored.restore(model()) == 4
    assert restored.totals.tolist() == [1.5, 2.0]
    restored.delete()
    assert not tmp_path.exists()


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_file_falls_back_to_the_one_before_in_one_line(tmp_path, capsys, damage):
    kept = fit(model(), Backup(tmp_path), epochs=2)
    fit(kept, Backup(tmp_path), epochs=3, initial_epoch=2)
    newest = tmp_path / "epoch_0003.npz"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    newest.write_bytes({"cut": content[: len(content) // 2], "flipped": content, "empty": b""}[damage])
    assert Backup(tmp_path).restore(model()) == 2
    [line] = capsys.readouterr().out.splitlines()
    assert "epoch_0003.npz cannot be read" in line
    (tmp_path / "epoch_0002.npz").write_bytes(b"")
    assert Backup(tmp_path).restore(model()) == 0


def test_the_state_of_another_network_is_refused(tmp_path):
    fit(model(), Backup(tmp_path), epochs=1)
    with pytest.raises(ValueError, match="another network"):
        Backup(tmp_path).restore(model(units=4))


@pytest.fixture
def full_disk():
    """No file can grow beyond 1,000 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_backup_before_it(tmp_path, request):
    network = fit(model(), Backup(tmp_path), epochs=1)
    request.getfixturevalue("full_disk")
    with pytest.raises(OSError, match="no backup of epoch 2: File too large"):
        fit(network, Backup(tmp_path), epochs=2, initial_epoch=1)
    assert [path.name for path in tmp_path.iterdir()] == ["epoch_0001.npz"]
    assert Backup(tmp_path).restore(model()) == 1


WRITER = """
    import os, signal, sys
    import numpy as np
    from keras_maskrcnn.training import backup

    class Variable:
        shape = (1000,)
        def __init__(self, value): self.value = np.full(1000, value)
        def __array__(self, *_, **__): return self.value

    class Model:
        class optimizer: variables = []
        variables = [Variable(1.0) for _ in range(20)]

    writer = backup.Backup(sys.argv[1])
    writer.set_model(Model)
    writer.on_epoch_end(0)
    written = 0
    write = np.lib.format.write_array
    def stop(file, array, **options):  # in the middle of the second file
        global written
        written += 1
        write(file, array, **options)
        if written == 10:
            os.kill(os.getpid(), signal.SIGKILL)
    np.lib.format.write_array = stop
    writer.on_epoch_end(1)
"""


def test_a_kill_while_the_file_is_written_leaves_the_one_before(tmp_path):
    program = [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path)]
    run = subprocess.run(program, env={**os.environ, "KERAS_BACKEND": "numpy"}, capture_output=True, text=True)
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"epoch_0001.npz", "epoch_0002.part"}
    assert Backup(tmp_path).epoch() == 1


@pytest.mark.parametrize("backend", ["tf", "numpy"])
@pytest.mark.parametrize("start", [3, 10, 16, 25])
def test_batches_start_at_any_position(backend, start):
    def images(start):
        options = {"augment": "flip", "repeat": True, "seed": 3, "mask_size": 14, "backend": backend}
        batches = data.batches(data.Shapes(10, image_size=(32, 32)), (32, 32), 1, **options)
        batches.rows.start = start
        return [(int(x["image_index"][0]), np.asarray(x["images"])) for x, _ in itertools.islice(batches, 35 - start)]

    for (index, image), (expected, other) in zip(images(start), images(0)[start:], strict=True):
        assert index == expected
        np.testing.assert_array_equal(image, other)


@pytest.mark.parametrize("backend", ["tf", "numpy"])
def test_an_unreadable_sample_moves_no_position(backend):
    class Broken(data.Shapes):
        def read(self, position):
            if position == 2:
                raise data.DataError("2.jpg", "is truncated")
            return super().read(position)

    def indices(start):
        batches = data.batches(Broken(5, image_size=(32, 32)), (32, 32), 1, repeat=True, backend=backend)
        batches.rows.start = start
        return [int(x["image_index"][0]) for x, _ in itertools.islice(batches, 12 - start)]

    assert indices(0) == [0, 1, 3, 3, 4, 0, 1, 3, 3, 4, 0, 1]
    assert indices(7) == indices(0)[7:]
