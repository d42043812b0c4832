"""The reverse proxy in front of TorchServe.

TorchServe's `/ping` reports healthy while workers still load, and TorchServe drops running requests
when it is stopped. The proxy corrects both. It uses the standard library alone.
"""
