"""Valid requests mutated by Hypothesis."""

from collections.abc import Callable

from hypothesis import strategies as st

from tests.fuzz.corpus import BINARY_HEADER, CUSTOM_ATTRIBUTES, Seed, seeds

SEEDS = seeds()
MAX_MUTATIONS = 5
# Repeated repetitions would exhaust the memory before they reach a server.
MAX_BYTES = 2_000_000
# Tokens that parsers often mishandle: signs, brackets, numbers at the limits of their types.
TOKENS = [
    b"", b"\0", b"\xff" * 4, b"-1", b"0", b"1e999", b"NaN", b"9" * 30, b"9" * 5000, b"[", b"]" * 50,
    b"[" * 600, b"{", b'"', b"\\", b"\\ud800", b",", b":", b"null", b"true", b"[]", b"{}", b'""',
    b"\x93NUMPY\x01\0", b"\x93NUMPY\x02\0", b"'descr': '|O'", b"'fortran_order': True",
    b"'shape': (0, 10)", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0", b"RIFF", b"BM",
    b"IDAT", b"iCCP", b"acTL", b"\x7f\xff\xff\xff", b"\xff\xff", b"=", b"data:image/png;base64,",
    "ü\u2028".encode(), b"zqxcanary",
]  # fmt: skip
HEADER_TEXTS = [
    "", "*/*", "image/*", "application/json", "application/jsonlines", "application/x-npy",
    "application/x-npz", "image/png", "image/jpeg;q=0", "application/json;verbose;n_predictions=0",
    "application/json;verbose;n_predictions=9999999999999999999", ",,,;;;===", "q=1;q=2;/",
    "text/html, */*;q=0.1", "multipart/form-data",
    "application/octet-stream", "zqxcanary/zqxcanary",
    "{" * 200, '{"masks": ["none"]}', '{"classes": [1, "x", null]}', "classes=,,,", "a=b=c;d",
    "masks=none;format=coco", "score_threshold=1e999", "max_detections=-1", "input_range=0-255",
    "response_type=npz", "response_type=jpeg,format=jumpstart", "0", "-1", "300", "9" * 30, "gzip",
    "text/plain", "*/*; q=1", "image/*",
]  # fmt: skip
HEADERS = ["content-type", "content-encoding", "accept", BINARY_HEADER, CUSTOM_ATTRIBUTES]

Mutation = Callable[[bytes], bytes]


def _at(body: bytes, place: float) -> int:
    return int(place * len(body))


def flipped(place: float, value: int) -> Mutation:
    """Replace one byte."""

    def mutate(body: bytes) -> bytes:
        index = min(_at(body, place), len(body) - 1)
        return body[:index] + bytes([value]) + body[index + 1 :] if body else body

    return mutate


def cut(start: float, end: float) -> Mutation:
    """Remove a range."""
    return lambda body: body[: _at(body, min(start, end))] + body[_at(body, max(start, end)) :]


def inserted(place: float, token: bytes) -> Mutation:
    """Insert a token."""
    return lambda body: body[: _at(body, place)] + token + body[_at(body, place) :]


def overwritten(place: float, token: bytes) -> Mutation:
    """Overwrite with a token."""

    def mutate(body: bytes) -> bytes:
        index = _at(body, place)
        return body[:index] + token + body[index + len(token) :]

    return mutate


def repeated(start: float, end: float, times: int) -> Mutation:
    """Repeat a range, up to MAX_BYTES."""

    def mutate(body: bytes) -> bytes:
        first, last = _at(body, min(start, end)), _at(body, max(start, end))
        repeats = min(times, MAX_BYTES // max(1, last - first))
        return body[:first] + body[first:last] * repeats + body[last:]

    return mutate


def crossed(place: float, other: Seed) -> Mutation:
    """Join the start of one body and the rest of another."""
    return lambda body: body[: _at(body, place)] + other.body[_at(other.body, place) :]


PLACE = st.floats(0, 1)
# Formats have their sizes and types in short headers at the beginning.
PLACES = st.one_of(PLACE, PLACE.map(lambda place: place**4))
MUTATIONS = st.one_of(
    st.builds(flipped, PLACES, st.integers(0, 255)),
    st.builds(cut, PLACES, PLACES),
    st.builds(inserted, PLACES, st.sampled_from(TOKENS)),
    st.builds(overwritten, PLACES, st.sampled_from(TOKENS)),
    st.builds(repeated, PLACES, PLACES, st.integers(0, 40)),
    st.builds(crossed, PLACES, st.sampled_from(SEEDS)),
)
NEW_HEADERS = st.dictionaries(st.sampled_from(HEADERS), st.sampled_from(HEADER_TEXTS), max_size=2)


@st.composite
def mutated_seeds(draw: st.DrawFn) -> Seed:
    """A seed with up to MAX_MUTATIONS mutations of its body, and other headers."""
    seed = draw(st.sampled_from(SEEDS))
    body = seed.body
    for mutate in draw(st.lists(MUTATIONS, max_size=MAX_MUTATIONS)):
        body = mutate(body)
    return Seed(seed.name, body, {**seed.headers, **draw(NEW_HEADERS)})
