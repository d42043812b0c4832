"""Networks reproduce the results of the upstream package, if that is installed."""

from importlib.util import find_spec

import pytest
import torch

from d2serve.detections import Detections
from d2serve.detector.native import NativeDetector
from d2serve.settings import Settings
from tests.goldens.cases import MODELS, VARIANTS, GoldenModel
from tests.goldens.comparison import compare
from tests.goldens.upstream import UpstreamModel

pytestmark = [
    pytest.mark.upstream,
    pytest.mark.skipif(
        find_spec("detectron2") is None, reason="the upstream detectron2 package is not installed"
    ),
    # Detectron2 emits deprecation warnings.
    pytest.mark.filterwarnings("ignore"),
]


@pytest.mark.parametrize("golden", [*MODELS, *VARIANTS], ids=lambda golden: golden.name)
def test_results_equal_the_installed_upstream(golden: GoldenModel) -> None:
    if not golden.is_in_package:
        pytest.skip("the network is that of another project")
    upstream = UpstreamModel(golden.config, golden.checkpoint)
    ours = NativeDetector(golden.build(), torch.device("cpu"), Settings())
    for path in golden.images:
        image = golden.pixels(path)
        [result] = ours.detect([image])
        assert isinstance(result.output, Detections)
        expected = upstream.predict(image)
        assert expected.has_content
        comparison = compare(expected, result.output)
        assert comparison.within_tolerance, (path.name, comparison)
