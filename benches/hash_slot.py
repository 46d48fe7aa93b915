"""The hash slot of a key is `crc16(key) % 16384`. Shards own ranges of slots."""


def crc16(data):
    """CRC-16/XMODEM: polynomial 0x1021, starts at 0."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1) ^ 0x1021 if crc & 0x8000 else crc << 1
    return crc & 0xFFFF
