"""What `predict --panoptic` writes: drawings of panoptic maps, and COCO panoptic results."""

import json

import numpy as np
from PIL import Image

from keras_maskrcnn.cli.results import JsonList, Writer, created
from keras_maskrcnn.data.coco_panoptic import colours
from keras_maskrcnn.heads.outputs import maps
from keras_maskrcnn.inference.panoptic import VOID, panoptic


class Merging:
    """From `Detections` to panoptic maps with the names of a model.

    Args:
        finder: `finder.Finder` of the model.
        stuff_area: as for `inference.panoptic.panoptic`.

    Raises:
        ValueError: if the model predicts no masks or no map.
    """

    def __init__(self, finder, stuff_area):
        if not maps(finder.schema) or not any(output.is_mask for output in finder.schema):
            raise ValueError("--panoptic needs a model with masks and a map of stuff, such as a SemanticHead")
        self._stuff_area, self.class_names, self.stuff_names = stuff_area, finder.class_names, finder.stuff_names

    def __call__(self, found):
        """The `inference.panoptic.Panoptic` of one image; the threshold of scores has been applied to `found`."""
        return panoptic(found, score_threshold=0.0, stuff_area=self._stuff_area)

    def draw(self, image, found, scale):
        """The drawing of one image, uint8 [H·scale, W·scale, 3]."""
        from keras_maskrcnn.visualize import draw_panoptic

        return draw_panoptic(image, self(found), self.class_names, self.stuff_names, scale=scale)


class PanopticResults(Writer):
    """COCO panoptic results: a PNG file for each image, whose colours are the ids of segments, and a JSON file.

    Categories have the ids of a COCO file, or numbers from 1, things first. Segments of categories that the file lacks
    are left out.

    Args:
        folder: Path of the PNG files; the JSON file has its name and lies beside it.
        merging: `Merging`.
        num_classes: number of the classes of things.
        ids: `coco_ids.CocoIds` of the names of things and stuff, or None.
    """

    def __init__(self, folder, merging, num_classes, ids=None):
        self._folder, self._merging = folder, merging
        things = merging.class_names or [str(number) for number in range(1, num_classes + 1)]
        names = {(True, label): name for label, name in enumerate(things, start=1)}
        names |= {(False, label): name for label, name in enumerate(merging.stuff_names, start=1)}
        numbers = ids.category_ids if ids else range(1, len(names) + 1)
        self._ids = {place: number for place, number in zip(names, numbers, strict=True) if number is not None}
        listed = [{"id": n, "name": names[place], "isthing": int(place[0])} for place, n in self._ids.items()]
        end = f'\n], "categories": {json.dumps(listed)}}}\n'
        self._list = JsonList(folder.with_name(f"{folder.name}.json"), start='{"annotations": [', end=end)

    def add(self, picture, found):
        """Writes the PNG file of an image, and its entry in the JSON file."""
        merged, segments = self._merging(found), []
        for one in merged.segments:
            if (one.thing, one.label) in self._ids:
                category = self._ids[one.thing, one.label]
                score = {} if one.score is None else {"score": round(one.score, 5)}
                segments.append({"id": one.id, "category_id": category, "area": one.area, "iscrowd": 0, **score})
        known = np.isin(merged.ids, [segment["id"] for segment in segments])
        file = created(self._folder / f"{picture.name}.png")
        Image.fromarray(colours(np.where(known, merged.ids, VOID))).save(file)
        name = file.relative_to(self._folder).as_posix()
        record = {"image_id": picture.image_id, "file_name": name, "image": str(picture.source)}
        self._list.extend([{**record, "segments_info": segments}])

    def close(self):
        """Closes the JSON file."""
        self._list.close()
