"""Base64 in bulk: ``binascii`` decodes 0.25 to 0.5 GB/s, and an engine has gigabytes.

Two characters at a time are looked up in a table (65536 entries), then shifted together in 64-bit lanes by PyTorch's
vectorised operators. (Several threads do not decode faster: these operators are short, and the lock goes to and fro.)
"""

from __future__ import annotations

import binascii
import functools

import torch

__all__ = ["Decoder"]

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_LANES = 32
"""Characters that become a whole number of 64-bit lanes: 32 characters, 24 bytes, 3 lanes."""
_BLOCK = 48 << 10
"""Characters looked up at once: few enough that PyTorch does not split the work among threads of its own."""
_INVALID = 0x8000_0100_8000_0100 - (1 << 64)
"""In each lane, the bits that only entries of invalid characters have."""


class Decoder:
    """Decodes pieces of up to ``size`` characters; one thread at a time may use it."""

    size = 4 * _BLOCK
    """A multiple of 32. Scratch memory for it stays in the processor's cache."""

    def __init__(self) -> None:
        self._table = _table()
        self._index = torch.empty(_BLOCK // 2, dtype=torch.int32)
        self._pairs = torch.empty(self.size // 2, dtype=torch.int16)
        self._spare = torch.empty(self.size // 8, dtype=torch.int64)
        self._invalid = torch.zeros(self.size // 8, dtype=torch.int64)

    def decode(self, text: memoryview, out: memoryview) -> int:
        """Decode ``text`` into the front of ``out``; gives the number of bytes.

        Raises:
            ValueError: Not base64, or more than ``out`` holds.
        """
        bulk = len(text) // _LANES * _LANES
        # the last quantum may be padded
        if bulk == len(text):
            bulk -= _LANES
        done = 0
        if bulk > 0:
            done = bulk // 4 * 3
            if done > len(out):
                raise ValueError("base64 of more bytes than expected")
            self._decode_lanes(
                torch.frombuffer(text, dtype=torch.uint16, count=bulk // 2),
                torch.frombuffer(out, dtype=torch.int64, count=done // 8),
            )
        rest = bytes(text[max(bulk, 0) :])
        decoded = binascii.a2b_base64(rest)
        if len(decoded) != len(rest) // 4 * 3 - rest[-2:].count(b"=") or done + len(decoded) > len(out):
            raise ValueError("not base64 of the expected size")
        out[done : done + len(decoded)] = decoded
        return done + len(decoded)

    def finish(self) -> None:
        """Check all pieces together: looking at each costs as much as a tenth of the decoding.

        Raises:
            ValueError: There was a character that is not base64.
        """
        if self._invalid.any():
            raise ValueError("not base64")

    def _decode_lanes(self, text: torch.Tensor, out: torch.Tensor) -> None:
        pairs = text.numel()
        for start in range(0, pairs, _BLOCK // 2):
            block = text[start : start + _BLOCK // 2]
            count = block.numel()
            index = self._index[:count]
            index.copy_(block)
            # two positions in a lane: even pairs look in the table's first half, odd ones in its second
            index.view(torch.int64).add_(1 << 48)
            torch.index_select(self._table, 0, index, out=self._pairs[start : start + count])
        lanes = self._pairs[:pairs].view(torch.int64)
        spare = self._spare[: pairs // 4]
        torch.bitwise_and(lanes, _INVALID, out=spare)
        self._invalid[: pairs // 4] |= spare
        # 32-bit halves: [byte 0, high half of byte 1 | byte 2, low half of byte 1] to 24 bits
        torch.bitwise_right_shift(lanes, 16, out=spare)
        spare &= 0x0000_0F00_0000_0F00
        lanes &= 0x00FF_F0FF_00FF_F0FF
        lanes |= spare
        # the two halves of a lane to 48 bits
        torch.bitwise_right_shift(lanes, 8, out=spare)
        spare &= 0xFFFF_FF00_0000
        lanes &= 0xFF_FFFF
        lanes |= spare
        # four lanes of 48 bits to three of 64
        first, second, third, fourth = lanes.view(-1, 4).unbind(1)
        shifted = spare.view(-1, 4)[:, 0]
        out_0, out_1, out_2 = out.view(-1, 3).unbind(1)
        torch.bitwise_left_shift(second, 48, out=shifted)
        torch.bitwise_or(first, shifted, out=out_0)
        second >>= 16
        torch.bitwise_left_shift(third, 32, out=shifted)
        torch.bitwise_or(second, shifted, out=out_1)
        third >>= 32
        torch.bitwise_left_shift(fourth, 16, out=shifted)
        torch.bitwise_or(third, shifted, out=out_2)


@functools.cache
def _table() -> torch.Tensor:
    """What a pair of characters contributes, placed where the shifts want it; for even pairs, then for odd ones."""
    values = torch.full((256,), -1, dtype=torch.int16)
    values[torch.frombuffer(bytearray(_ALPHABET), dtype=torch.uint8).long()] = torch.arange(64, dtype=torch.int16)
    # a pair is read as one little-endian number, first character in the low byte
    first, second = values.repeat(256), values.repeat_interleave(256)
    bits = first << 6 | second
    even = bits >> 4 | (bits & 0xF) << 12
    odd = bits & 0xFF | (bits >> 8) << 8
    invalid = (first < 0) | (second < 0)
    even[invalid] = 1 << 8
    odd[invalid] = -(1 << 15)
    return torch.cat([even, odd])
