"""The load generator: closed and open loops over HTTP, with asyncio."""
