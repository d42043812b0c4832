"""The environment of commands that the tests start."""

import os


def without_make() -> dict[str, str]:
    """Our environment without what a make above us (`make test`) hands down to its children."""
    commands = ("CONFIG", "WEIGHTS", "NAME", "CLASSES", "IMAGE", "URL", "MODEL", "PORT")
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MAKE", "MFLAGS")) and name not in commands
    }
