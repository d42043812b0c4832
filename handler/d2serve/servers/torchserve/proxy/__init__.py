"""The reverse proxy in front of TorchServe.

TorchServe reports healthy while its workers still load, and drops running requests when it is told
to stop. The proxy corrects both, on the standard library alone.
"""
