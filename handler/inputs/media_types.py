"""The Content-Types of requests."""

IMAGES = tuple(
    f"image/{subtype}" for subtype in ("jpeg", "jpg", "png", "webp", "bmp", "gif", "tiff")
)
NPY = "application/x-npy"
JSON = "application/json"
JSON_LINES = "application/jsonlines"
# An image or an NPY array, told apart by the first bytes.
EITHER = ("application/octet-stream", "application/x-image", "")
FORM = "application/x-www-form-urlencoded"
NAMED = (*IMAGES, NPY, JSON, JSON_LINES, "multipart/form-data", *EITHER[:2])


def essence(content_type: str) -> str:
    """The type alone, in lower case, without parameters (WHATWG MIME Sniffing's "essence")."""
    return content_type.partition(";")[0].strip().lower()
