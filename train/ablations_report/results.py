"""The results of a run: one JSON object per line, one line per variant and seed."""

import json
import os


class Results:
    """Results that survive a kill: a line that was cut off is left out, and its training is done again.

    Args:
        path: path of the file, which need not exist.
        settings: dict of what all results of a run have in common, such as the number of images.
    """

    def __init__(self, path, settings):
        self.path, self.settings = path, _plain(settings)
        self.records = {}
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
            try:
                record = json.loads(line)
                self.records[record["variant"], record["seed"]] = record
            except (ValueError, KeyError, TypeError):
                continue

    def check(self, variants):
        """Raises a ValueError if the file has results of other settings, or of variants with other arguments.

        Args:
            variants: dict from names to arguments.
        """
        for (name, _), record in self.records.items():
            theirs = {**record["settings"], "arguments": record["arguments"]}
            ours = {**self.settings, "arguments": _plain(variants.get(name, record["arguments"]))}
            if changed := [key for key in ours if theirs.get(key) != ours[key]]:
                what = f"{changed[0]} {theirs.get(changed[0])} (not {ours[changed[0]]})"
                raise ValueError(f"{self.path} holds results of {name} with {what}: use another --output")

    def __contains__(self, key):
        return key in self.records

    def add(self, variant, seed, arguments, figures):
        """Adds a result and writes the file, which is complete at any time."""
        record = {"variant": variant, "seed": seed, **figures, "settings": self.settings, "arguments": arguments}
        self.records[variant, seed] = _plain(record)
        temporary = self.path.with_suffix(".part")
        temporary.write_text("".join(json.dumps(each) + "\n" for each in self.records.values()), encoding="utf-8")
        os.replace(temporary, self.path)

    def values(self, variant, figure):
        """Dict from seeds to a figure of a variant in AP points; figures that do not exist are left out."""
        found = {seed: record.get(figure) for (name, seed), record in sorted(self.records.items()) if name == variant}
        return {seed: 100 * value for seed, value in found.items() if value is not None}


def _plain(content):
    """What JSON makes of it: tuples become lists."""
    return json.loads(json.dumps(content))
