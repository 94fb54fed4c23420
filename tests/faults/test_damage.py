"""Files of a stopped run that are damaged: the run continues from the backup before, and ends with the same results."""

import pytest
import recipe_runs
from recipe_runs import EPOCHS

from keras_maskrcnn.training.backup import Backup
from keras_maskrcnn.training.event_log import read_scalars

DAMAGE = {
    "cut": lambda content: content[: len(content) // 2],
    "flipped": lambda content: content[:-5000] + bytes(byte ^ 0xFF for byte in content[-5000:]),
    "zeros": lambda content: bytes(len(content)),
}


@pytest.mark.slow
def test_a_damaged_backup_costs_one_epoch_and_changes_nothing(undisturbed, run):
    for number, damage in enumerate(DAMAGE.values(), start=1):
        one = run()
        assert one.wait_for("evaluation", 3)  # two more epochs are complete
        one.stop()
        backup = Backup(one.output / "backup")
        assert backup.epoch() == number + 1
        newest = backup.folder / f"epoch_{number + 1:04d}.npz"
        newest.write_bytes(damage(newest.read_bytes()))
        # What else a loss of power may leave: half a row, and half a value in TensorBoard's file.
        with open(one.output / "history.csv", "ab") as file:
            file.write(b"7,0.5,0.")
        log = max((one.output / "logs").glob("events*"))
        log.write_bytes(log.read_bytes()[:-9])
    again = run()
    printed = again.complete()
    assert f"{newest} cannot be read" in printed
    assert f"continues after epoch {len(DAMAGE)} of {EPOCHS}" in printed
    recipe_runs.check_equal(again.output, undisturbed.output)
    assert recipe_runs.epochs(again.output) == list(range(EPOCHS))
    assert read_scalars(again.output / "logs") == read_scalars(undisturbed.output / "logs")
