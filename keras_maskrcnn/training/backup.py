"""The state of a training run on disk, from which a stopped run continues."""

import os
import pathlib
import shutil

import keras
import numpy as np


class Backup(keras.callbacks.Callback):
    """Saves the state of training after each epoch; a run that is restored from it gives the results of one process.

    `keras.callbacks.BackupAndRestore` does not: it overwrites the file in place, so that a process killed while writing
    leaves no usable backup; it omits the states of the `keras.random.SeedGenerator`s; and it deletes the backup at the
    end of `fit`, before the model is saved. The state here is the weights, the seed generators and the optimizer's
    variables; Keras resets metrics at the start of each epoch. The position in the data follows from the number of
    epochs, see `data.batches`.

    Each epoch is a file of its own, `FOLDER/epoch_NNNN.npz`, written under another name and renamed. The latest two are
    kept. `restore` reads the latest; where it cannot be read, the one before it.

    Args:
        folder: folder of the files, created with the first one.
        totals: float64 array that is saved and restored with the state, such as the seconds of training; or None.
    """

    def __init__(self, folder, totals=None):
        super().__init__()
        self.folder = pathlib.Path(folder)
        self.totals = np.zeros(0) if totals is None else totals

    def epoch(self):
        """Number of epochs in the latest file, 0 if there is none."""
        return max(self._files(), default=0)

    def restore(self, model):
        """Sets the state of a compiled model whose optimizer is built.

        Returns:
            The number of complete epochs, `initial_epoch` of `fit`; 0 if no file can be read.

        Raises:
            ValueError: in one line, if the state is that of another network or optimizer.
        """
        for epoch, path in sorted(self._files().items(), reverse=True):
            try:
                state = _read(path)
            except Exception as error:  # what zipfile and NumPy raise depends on the damage
                print(f"{path} cannot be read ({error}): going back to the backup before it")
                continue
            self._assign(model, state, path)
            return epoch
        return 0

    def on_epoch_end(self, epoch, logs=None):
        """Writes the state.

        Raises:
            OSError: the file cannot be written; the ones before it are kept.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"epoch_{epoch + 1:04d}.npz"
        temporary = path.with_suffix(".part")
        state = [keras.ops.convert_to_numpy(variable) for variable in variables(self.model)]
        try:
            with open(temporary, "wb") as file:
                np.savez(file, self.totals, *state)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            reason = f"no backup of epoch {epoch + 1}: {error.strerror or error}; earlier ones are kept"
            raise OSError(error.errno, reason, str(path)) from error
        finally:
            temporary.unlink(missing_ok=True)
        for _, old in sorted(self._files().items())[:-2]:
            old.unlink()

    def delete(self):
        """Deletes the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _files(self):
        """Dict from numbers of epochs to paths."""
        return {int(path.stem.removeprefix("epoch_")): path for path in self.folder.glob("epoch_*.npz")}

    def _assign(self, model, state, path):
        totals, *values = state
        kept = variables(model)
        shapes = [tuple(variable.shape) for variable in kept]
        if totals.shape != self.totals.shape or shapes != [value.shape for value in values]:
            raise ValueError(f"{path} is the state of another network or optimizer")
        self.totals[...] = totals
        for variable, value in zip(kept, values, strict=True):
            if value.dtype.kind == "V":  # NumPy stores bfloat16 as two bytes without a type
                value = value.view(keras.ops.convert_to_numpy(variable).dtype)
            variable.assign(value)


def variables(model):
    """All state of a compiled model: `model.weights` lacks the seed generators, which `model.variables` has."""
    return [*model.variables, *model.optimizer.variables]


def _read(path):
    """The arrays of a file, checked against their check sums by zipfile."""
    with np.load(path) as file:
        return [file[f"arr_{index}"] for index in range(len(file.files))]
