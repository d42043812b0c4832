"""The ASGI server: Starlette and uvicorn, without Java."""
