"""How large an answer may be."""

from handler.errors import too_large


def require_bytes(size: int, most: int) -> None:
    """Raises RequestError: 413 where an answer of `size` bytes passes `most`."""
    if size > most:
        raise too_large(
            f"the answer has {size} bytes; at most {most} are sent",
            "ask for masks=none or fewer detections (max_detections, score_threshold), "
            "or raise max_response_bytes in model-config.yaml",
        )
