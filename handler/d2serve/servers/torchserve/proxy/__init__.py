"""The reverse proxy in front of TorchServe.

TorchServe's `/ping` reports healthy while workers still load, it drops running requests when it is
stopped, and it lacks routes and errors of the contract. The proxy corrects this. It needs only the
standard library and h11, which every archive contains.
"""
