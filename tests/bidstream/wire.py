"""Protobuf's wire format by hand, independent of any .proto file of this project."""

import struct


def varint(value: int) -> bytes:
    """Base-128, least significant group first; a negative int32 takes ten bytes."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def integer(field: int, value: int) -> bytes:
    """A varint field: integers, booleans and enums."""
    return varint(field << 3) + varint(value)


def double(field: int, value: float) -> bytes:
    return varint(field << 3 | 1) + struct.pack("<d", value)


def data(field: int, value: bytes | str) -> bytes:
    """A length-delimited field: strings, bytes, messages, packed numbers."""
    raw = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(raw)) + raw
