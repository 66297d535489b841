"""CRC-32C (Castagnoli). In C where Debian's python3-crc32c, or google_crc32c, is installed; else by
table, at some megabytes a second.
"""
POLYNOMIAL = 0x82f63b78  # reflected


def _entry(byte):
    for _ in range(8):
        byte = byte >> 1 ^ (POLYNOMIAL if byte & 1 else 0)
    return byte


TABLE = [_entry(byte) for byte in range(256)]


def by_table(data, before=0):
    """The CRC of what has the CRC `before`, followed by data."""
    crc, table = before ^ 0xffffffff, TABLE
    for byte in data:
        crc = table[(crc ^ byte) & 0xff] ^ crc >> 8
    return crc ^ 0xffffffff


def _fastest():
    try:
        from crc32c import crc32c as fast  # (data, before)
        return fast
    except ImportError:
        pass
    try:
        from google_crc32c import extend  # (before, data)
        return lambda data, before=0: extend(before, bytes(data))
    except ImportError:
        return by_table


crc32c = _fastest()
