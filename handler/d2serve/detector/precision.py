"""Number type of the network's layers."""

import logging
from pathlib import Path

import torch

from d2serve.settings import SettingsError

logger = logging.getLogger(__name__)
CPU_FACTS = Path("/proc/cpuinfo")
# How Linux calls bfloat16 arithmetic: on x86 and on Arm.
NATIVE_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}
# NVIDIA's compute capabilities with fast float16 (Volta) and bfloat16 (Ampere).
FP16_CAPABILITY, BF16_CAPABILITY = (7, 0), (8, 0)


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The type for `handler.precision` on a device.

    `auto` is the quickest one that the device computes natively: bfloat16, else on a GPU float16,
    else float32.

    Raises:
        SettingsError: float16 on the CPU, which torch computes slower than float32.
    """
    if precision == "auto":
        return _native_dtype(device)
    if precision == "fp16" and device.type == "cpu":
        raise SettingsError(
            "handler setting precision is 'fp16', which is for GPUs; on the CPU use fp32, bf16 "
            "or auto"
        )
    if precision == "bf16" and _native_dtype(device) is not torch.bfloat16:
        logger.warning("precision bf16: %s has no bfloat16 arithmetic; fp32 is quicker", device)
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def _native_dtype(device: torch.device) -> torch.dtype:
    if device.type == "cpu":
        return torch.bfloat16 if _cpu_has_bf16() else torch.float32
    capability = torch.cuda.get_device_capability(device)
    if capability >= BF16_CAPABILITY:
        return torch.bfloat16
    return torch.float16 if capability >= FP16_CAPABILITY else torch.float32


def _cpu_has_bf16() -> bool:
    """As Linux says; other systems do not say it, and count as without."""
    if not CPU_FACTS.is_file():
        return False
    return not NATIVE_BF16.isdisjoint(CPU_FACTS.read_text(encoding="ascii").split())
