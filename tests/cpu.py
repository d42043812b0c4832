"""Features of the CPU that tests need."""

from pathlib import Path

import pytest

CPU_INFO = Path("/proc/cpuinfo")
INT8_FLAGS = {"avx512_vnni", "avx_vnni", "amx_int8"}


def has_int8() -> bool:
    """Return whether the CPU multiplies 8-bit integers without saturation."""
    words = CPU_INFO.read_text(encoding="ascii").split() if CPU_INFO.is_file() else []
    return not INT8_FLAGS.isdisjoint(words)


needs_int8 = pytest.mark.skipif(not has_int8(), reason="the CPU has neither VNNI nor AMX")
