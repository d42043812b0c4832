import io
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from d2serve.errors import RequestError
from d2serve.outputs.segment_maps import id_png

COLUMNS = np.repeat(np.arange(1000, dtype=np.int32), 2)


@pytest.mark.parametrize(
    "ids",
    [
        pytest.param([[0]], id="a-pixel-of-nothing"),
        pytest.param([[1, 255, 256, 65_535, 65_536, 256**3 - 1]], id="all-three-bytes"),
        pytest.param(COLUMNS.reshape(40, 50).T, id="not-contiguous"),
        pytest.param(COLUMNS.reshape(40, 50).astype(">i4"), id="of-other-machines"),
        pytest.param(COLUMNS[:, None], id="a-column"),
    ],
)
def test_ids_are_read_back_as_coco_reads_them(ids: object) -> None:
    given = np.array(ids, dtype=None if isinstance(ids, np.ndarray) else np.int32)
    image = Image.open(io.BytesIO(id_png(given)))
    assert (image.format, image.mode) == ("PNG", "RGB")
    red, green, blue = np.asarray(image).astype(int).transpose(2, 0, 1)
    np.testing.assert_array_equal(red + 256 * green + 256 * 256 * blue, given)


def test_a_map_takes_no_more_memory_than_itself() -> None:
    ids = np.zeros((1000, 1000), dtype=np.int32)
    tracemalloc.start()
    id_png(ids)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < ids.nbytes


def test_a_map_too_long_for_a_png_is_a_406_that_names_arrays() -> None:
    assert id_png(np.ones((1, 1_000_000), dtype=np.int32))
    with pytest.raises(RequestError, match="1000000 pixels") as raised:
        id_png(np.ones((1_000_001, 1), dtype=np.int32))
    assert (raised.value.status, "x-npz" in raised.value.hint) == (406, True)
