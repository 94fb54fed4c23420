"""The protocol buffers of TFRecord files: `tf.train.Example`, and label maps, without TensorFlow.

The messages are described here and built by the `protobuf` package, which TensorBoard needs too. They have a pool of
their own, because TensorFlow registers its messages in the default one. Sources: tensorflow/core/example/example.proto
and feature.proto, object_detection/protos/string_int_label_map.proto in TensorFlow's repositories.
"""

import functools

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import DecodeError

from keras_maskrcnn.data.errors import DataError
from keras_maskrcnn.data.paths import regular

Field = descriptor_pb2.FieldDescriptorProto
KINDS = {"bytes_list": Field.TYPE_BYTES, "float_list": Field.TYPE_FLOAT, "int64_list": Field.TYPE_INT64}


def features_of(content, place):
    """Returns the features of a serialised Example: a dict from names to lists of bytes, floats or integers.

    Raises:
        DataError: the bytes are no Example; `place` is named.
    """
    try:
        example = _messages()["Example"].FromString(content)
    except DecodeError:
        raise DataError(place, "is no tf.train.Example") from None
    found = {name: (feature, feature.WhichOneof("kind")) for name, feature in example.features.feature.items()}
    return {name: getattr(feature, kind).value for name, (feature, kind) in found.items() if kind}


def example_of(features):
    """Returns a serialised Example: `features` is a dict from names to (kind, list of values), kinds as in `KINDS`."""
    example = _messages()["Example"]()
    for name, (kind, values) in features.items():
        getattr(example.features.feature[name], kind).value.extend(values)
    return example.SerializeToString(deterministic=True)


def read_label_map(path):
    """Returns the names of a label map: a dict from ids to names, in the order of the ids, without 0, the background.

    Args:
        path: Path of a `.pbtxt` file of the TensorFlow Object Detection API. The name shown to people is preferred.

    Raises:
        DataError: the file is missing, no label map, without a class, or has an id twice.
    """
    label_map = _messages()["StringIntLabelMap"]()
    regular(path)
    try:
        text_format.Parse(path.read_text(encoding="utf-8"), label_map, allow_unknown_field=True)
    except FileNotFoundError:
        raise DataError(path, "no such label map") from None
    except (OSError, RecursionError, UnicodeDecodeError, text_format.ParseError) as error:
        raise DataError(path, f"cannot be read as a label map ({error})") from error
    items = sorted((item for item in label_map.item if item.id > 0), key=lambda item: item.id)
    names = {item.id: item.display_name or item.name for item in items}
    if not names or len(names) < len(items):
        raise DataError(path, "has an id twice" if names else "names no class")
    return names


def write_label_map(path, names):
    """Writes a label map: `names` is a dict from ids to names."""
    label_map = _messages()["StringIntLabelMap"]()
    for number, name in names.items():
        label_map.item.add(id=number, name=name)
    path.write_text(text_format.MessageToString(label_map, as_utf8=True), encoding="utf-8")


@functools.cache
def _messages():
    """Classes of the messages by name."""
    pool = descriptor_pool.DescriptorPool()
    for name, syntax, messages in (("example", "proto3", _example()), ("label_map", "proto2", _label_map())):
        pool.Add(descriptor_pb2.FileDescriptorProto(name=name, package="records", syntax=syntax, message_type=messages))
    names = ("Example", "StringIntLabelMap")
    found = {name: pool.FindMessageTypeByName(f"records.{name}") for name in names}
    return {name: message_factory.GetMessageClass(descriptor) for name, descriptor in found.items()}


def _example():
    """Example holds Features, a map from names to Feature, which is a list of one of the kinds."""
    lists = [_message(name, [_field("value", 1, kind, many=True)]) for name, kind in KINDS.items()]
    kinds = [_field(name, number, name, oneof=True) for number, name in enumerate(KINDS, 1)]
    feature = _message("Feature", kinds)
    feature.oneof_decl.add(name="kind")
    features = _message("Features", [_field("feature", 1, "Features.FeatureEntry", many=True)])
    entry = _message("FeatureEntry", [_field("key", 1, Field.TYPE_STRING), _field("value", 2, "Feature")])
    entry.options.map_entry = True
    features.nested_type.append(entry)
    return [*lists, feature, features, _message("Example", [_field("features", 1, "Features")])]


def _label_map():
    names = [_field("name", 1, Field.TYPE_STRING), _field("id", 2, Field.TYPE_INT32)]
    item = _message("StringIntLabelMapItem", [*names, _field("display_name", 3, Field.TYPE_STRING)])
    return [item, _message("StringIntLabelMap", [_field("item", 1, "StringIntLabelMapItem", many=True)])]


def _message(name, fields):
    return descriptor_pb2.DescriptorProto(name=name, field=fields)


def _field(name, number, kind, many=False, oneof=False):
    """A field; its kind is a type of protobuf or the name of a message."""
    label = Field.LABEL_REPEATED if many else Field.LABEL_OPTIONAL
    field = Field(name=name, number=number, label=label)
    if isinstance(kind, str):
        field.type, field.type_name = Field.TYPE_MESSAGE, f".records.{kind}"
    else:
        field.type = kind
    if oneof:
        field.oneof_index = 0
    return field
