"""CRC-32C in plain Python, apart from the project's own."""
import functools


@functools.cache
def _table():
    out = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
        out.append(n)
    return out


@functools.lru_cache(maxsize=256)
def crc32c(data):
    table, state = _table(), 0xFFFFFFFF
    for byte in data:
        state = state >> 8 ^ table[(state ^ byte) & 255]
    return state ^ 0xFFFFFFFF


assert crc32c(b"123456789") == 0xE3069283
