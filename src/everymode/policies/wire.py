"""Messages between a robot and the server of its policy: MessagePack maps in which arrays are an extension type.

An array is extension 1 of MessagePack, and holds [dtype, shape, bytes] in C order. Only numbers travel: nothing that is
received is ever unpickled or run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from everymode.errors import DataError, require

__all__ = ["MESSAGE_BYTES", "pack", "unpack", "websockets"]

MESSAGE_BYTES = 16 << 20
"""A message is no longer than that, unless the server was told otherwise."""

_ARRAY = 1
_KINDS = "biuf"  # bool, whole numbers, floats


def websockets(part: str) -> Any:
    """Return a part of the package `websockets`, such as "exceptions"."""
    return require(f"websockets.{part}", "policies", "policy servers and their robots")


def _msgpack() -> Any:
    return require("msgpack", "policies", "messages to and from a policy server")


def pack(message: Mapping[str, Any]) -> bytes:
    """Return a message as bytes; arrays may stand anywhere in it."""
    return _msgpack().packb(message, default=_describe, use_bin_type=True)


def _describe(value: Any) -> Any:
    array = np.asarray(value)
    if array.dtype.kind not in _KINDS:
        raise DataError(f"a message holds {type(value).__name__} of dtype {array.dtype}: only numbers travel.")
    if isinstance(value, np.generic):
        return value.item()
    return _msgpack().ExtType(_ARRAY, _msgpack().packb([array.dtype.str, list(array.shape), array.tobytes()]))


def _array(code: int, data: bytes) -> np.ndarray:
    if code != _ARRAY:
        raise DataError(f"the message holds an extension of type {code}; {_ARRAY}, an array, is the only one known.")
    name, shape, values = _msgpack().unpackb(data)
    dtype = np.dtype(name)
    if dtype.kind not in _KINDS:
        raise DataError(f"the message holds an array of dtype {name}: only numbers travel.")
    if math.prod(shape) * dtype.itemsize != len(values):
        raise DataError(f"the message holds {len(values)} bytes for an array of {name} and shape {tuple(shape)}.")
    return np.frombuffer(values, dtype).reshape(shape)


def unpack(data: bytes | str, *, most: int = MESSAGE_BYTES) -> dict[str, Any]:
    """Return the message that `pack` wrote.

    Raises:
        DataError: it is longer than `most` bytes, or no such message.
    """
    if len(data) > most:
        raise DataError(f"the message has {len(data):,} bytes; {most:,} are the most. Send fewer or smaller images.")
    if isinstance(data, str):
        raise DataError("the message is text; send a binary MessagePack map.")
    msgpack = _msgpack()
    try:
        message = msgpack.unpackb(data, ext_hook=_array, max_ext_len=most, max_bin_len=most)
    except DataError:
        raise
    except Exception as error:  # msgpack raises of many kinds, and none of them may end a server
        raise DataError(f"the message is no MessagePack map: {error or type(error).__name__}.") from error
    if not isinstance(message, dict):
        raise DataError(f"the message is a {type(message).__name__}; send a map.")
    return message
