"""Start and stop TorchServe on this machine.

The launcher is not part of archives. It needs the packages of the extra `torchserve`.
"""

from d2serve.errors import CommandError

INSTALL_COMMAND = 'pip install "d2serve[torchserve]"'


def missing_package(name: str) -> CommandError:
    """Return the error for a package of the extra `torchserve` that is not installed."""
    return CommandError(
        f"the Python package {name}, which serving with TorchServe requires, is not installed; "
        f"install it with: {INSTALL_COMMAND}"
    )
