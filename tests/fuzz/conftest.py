"""Number of fuzz examples: few in every test run, many in `make fuzz`."""

import os

from hypothesis import HealthCheck, settings

EXAMPLES = "D2SERVE_FUZZ_EXAMPLES"
DEFAULT_EXAMPLES = 300
PIPELINE_EXAMPLES = int(os.environ.get(EXAMPLES, DEFAULT_EXAMPLES))
HTTP_EXAMPLES = PIPELINE_EXAMPLES // 10
# Of each of the four tests of image files.
FILE_EXAMPLES = PIPELINE_EXAMPLES // 4

settings.register_profile(
    "fuzz",
    max_examples=PIPELINE_EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES not in os.environ,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("fuzz")
