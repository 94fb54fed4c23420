"""Configurations and variables that earlier versions stored in their files."""


def current(config):
    """A `MaskRCNN` configuration as this version writes it, from one of version 0.1.0 or of this version.

    Version 0.1.0 had no `heads`, called `add_ground_truth` `add_truth`, and stored its default score threshold of 0.05,
    which `detect` replaced by 0.5: it becomes None, which means the same.

    Args:
        config: dict; it is not changed.

    Returns:
        dict.
    """
    config = {"heads": [], **config}
    sampling = dict(config.get("box_sampling") or {})
    if "add_truth" not in sampling:
        return config
    config["box_sampling"] = {"add_ground_truth": sampling.pop("add_truth"), **sampling}
    if config["detection"]["score_threshold"] == 0.05:
        config["detection"] = {**config["detection"], "score_threshold": None}
    return config


def current_variables(store):
    """The variables of a model that belong to none of its layers, from a file of version 0.1.0 or of this version.

    Version 0.1.0 stored the positions of skipped images, int32 `[64]`, before all others.

    Args:
        store: mapping from "0", "1", … to arrays.

    Returns:
        dict of the same kind.
    """
    values = [store[str(index)] for index in range(len(store.keys()))]
    if values and values[0].shape == (64,) and values[0].dtype == "int32":
        del values[0]
    return {str(index): value for index, value in enumerate(values)}
