import sys

from scripts.pythons import find_python


def test_the_python_that_runs_the_tests_is_found() -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert find_python(version)


def test_a_python_that_does_not_exist_is_absent() -> None:
    assert find_python("3.0") is None
