"""Containers of encoded images: their pixels without the metadata blocks that decoders misread."""
