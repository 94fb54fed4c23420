"""The records of a COCO file that can be used, where `data.Coco` refuses the file because of the others."""

import itertools

from keras_maskrcnn.data.coco_file import KEYS


def without_bad_records(content):
    """Removes the records of a COCO file that cannot be used.

    Args:
        content: parsed JSON.

    Returns:
        (content, faults): a new dict, and pairs of a place such as "annotations[3]" and what is wrong there.

    Raises:
        ValueError: it is no dict of lists of records.
    """
    if not isinstance(content, dict):
        raise ValueError("no dict")
    content, faults, known = dict(content), [], {}
    for kind in KEYS:
        records = content.get(kind, [])
        if not isinstance(records, list):
            raise ValueError(f"{kind} is no list")
        kept, known[kind] = [], set()
        free = itertools.count(1 + max(_whole_ids(records), default=0))
        for index, record in enumerate(records):
            if reason := _fault(kind, record, known):
                faults.append((f"{kind}[{index}]", reason))
                continue
            if kind == "annotations" and record["id"] in known[kind]:
                faults.append((f"{kind}[{index}]", f"has the id {record['id']!r} of another one, and gets a new one"))
                record = {**record, "id": next(free)}
            known[kind].add(record["id"])
            kept.append(record)
        content[kind] = kept
    return content, faults


def _fault(kind, record, known):
    """Why a record cannot be used, or None; `known` are the ids of the kinds of records before it."""
    if not isinstance(record, dict):
        return "is no record"
    missing = [key for key in KEYS[kind] if key not in record and not (key == "file_name" and "coco_url" in record)]
    if missing:
        return f"lacks {', '.join(missing)}"
    if any(type(record[key]) not in (int, str) for key in KEYS[kind] if key.endswith("id")):
        return "has an id that is neither a whole number nor a text"
    if kind != "annotations" and record["id"] in known[kind]:
        return f"has the id {record['id']!r} of another one"
    if kind == "images" and any(
        type(record[key]) not in (int, float) or record[key] < 1 for key in ("height", "width")
    ):
        return f"has the size {record['width']!r} x {record['height']!r}"
    for key, of in (("image_id", "images"), ("category_id", "categories")):
        if kind == "annotations" and record[key] not in known[of]:
            return f"has the unknown {key} {record[key]!r}"
    return None


def _whole_ids(records):
    ids = (record.get("id") for record in records if isinstance(record, dict))
    return [number for number in ids if type(number) is int]
