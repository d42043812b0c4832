"""Whether the package is there."""

INSTALL = "pip install --no-build-isolation git+https://github.com/facebookresearch/detectron2.git"


class PackageError(RuntimeError):
    """The `detectron2` package is missing or cannot run here."""


def package_version() -> str:
    """The version of the installed package.

    Raises:
        PackageError: there is none, or it does not load, as when it was built for another torch.
    """
    try:
        import detectron2
        import detectron2.modeling
    except ImportError as error:
        raise PackageError(
            f"this model needs the detectron2 package, which cannot be imported here ({error}); "
            f"install it where the model runs: {INSTALL}"
        ) from error
    return detectron2.__version__
