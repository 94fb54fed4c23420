"""Freezing of the first stages of a backbone."""


def freeze(model, freeze_at, levels):
    """Freezes the stem and the stages up to the level C`freeze_at`.

    Args:
        model: backbone with layers named "stem_…" and "stage1_…", "stage2_…", ….
        freeze_at: 0 for nothing, 1 for the stem, 2 also the stages up to C2, and so on.
        levels: dict from "C2", … to the number of the stage that the level is the output of.
    """
    if not freeze_at:
        return
    last = [0, *levels.values()][freeze_at - 1]
    frozen = {"stem", *(f"stage{stage}" for stage in range(1, last + 1))}
    for layer in model.layers:
        if layer.name.split("_")[0] in frozen:
            layer.trainable = False
