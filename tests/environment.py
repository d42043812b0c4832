"""The environment of the commands that tests start."""

import os

COMMAND_VARIABLES = (
    *("CONFIG", "WEIGHTS", "NAME", "CLASSES", "WEIGHTS_KEY", "RUNTIME", "MULTI_MODEL", "FILE"),
    *("IMAGE", "OVERLAY", "URL", "MODEL", "SERVER", "PORT"),
    *("INPUT", "OUTPUT", "FORMAT", "MASKS"),
    *("BENCH", "IMAGES", "P99_MS", "QUICK", "PROCESSES"),
    *("MINUTES", "CLIENTS", "HOSTILE", "KILL_EVERY"),
    *("ADDRESS", "METRICS_ADDRESS", "CERTIFICATE", "KEY", "CA", "TOKEN", "D2SERVE_TOKEN"),
)
NO_ACCOUNT = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}


def clean_environment() -> dict[str, str]:
    """This process's environment without variables of `make test` and without an AWS account."""
    inherited = {name: value for name, value in os.environ.items() if not _is_excluded(name)}
    return inherited | NO_ACCOUNT


def _is_excluded(name: str) -> bool:
    return name.startswith(("MAKE", "MFLAGS", "AWS_")) or name in COMMAND_VARIABLES
