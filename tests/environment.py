"""The environment of commands that the tests start."""

import os

COMMAND_VARIABLES = (
    *("CONFIG", "WEIGHTS", "NAME", "CLASSES", "IMAGE", "URL", "MODEL", "PORT"),
    *("BENCH", "PICTURES", "P99_MS", "QUICK", "PROCESSES"),
    *("MINUTES", "CLIENTS", "HOSTILE", "KILL_EVERY"),
    *("ADDRESS", "METRICS_ADDRESS", "CERTIFICATE", "KEY", "CA", "TOKEN", "D2SERVE_TOKEN"),
)
NO_ACCOUNT = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}


def clean_environment() -> dict[str, str]:
    """Ours without what a make above us (`make test`) hands down, and without any AWS account."""
    ours = {name: value for name, value in os.environ.items() if not _is_foreign(name)}
    return ours | NO_ACCOUNT


def _is_foreign(name: str) -> bool:
    return name.startswith(("MAKE", "MFLAGS", "AWS_")) or name in COMMAND_VARIABLES
