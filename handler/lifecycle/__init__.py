"""When a worker is open for requests: not before it is ready, and until its last one is answered.

TorchServe calls itself healthy while its workers still load, and drops what runs when it is told
to stop. These modules mend both from inside a worker, on the standard library alone.
"""
