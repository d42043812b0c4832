"""BMP files, which contain no metadata that decoders read."""

from d2serve.inputs.formats.image_parts import ImageParts

SIGNATURE = b"BM"
HEADER_BYTES = 34
COMMON_BITS = (1, 4, 8, 16, 24, 32)
# Without compression, and run lengths; others are bit fields, which decoders support partly.
COMMON_COMPRESSIONS = (0, 1, 2)


def bmp_parts(body: bytes) -> ImageParts:
    """The file, and the kind of its pixels if decoders may not support it."""
    bits = int.from_bytes(body[28:30], "little")
    compression = int.from_bytes(body[30:34], "little")
    if len(body) < HEADER_BYTES or (bits in COMMON_BITS and compression in COMMON_COMPRESSIONS):
        return ImageParts(body)
    kind = f"a BMP with {bits} bits per pixel and compression {compression}"
    return ImageParts(body, kind=kind)
