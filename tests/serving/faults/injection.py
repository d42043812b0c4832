"""Code that adds faults to the process of a server that runs the model."""

from pathlib import Path

# The side of an image selects the fault; images of different sizes run in separate forward passes.
GOOD, FAULT, EXCEEDS_MEMORY, MAX_TWO_PER_BATCH, LOST_DEVICE, HELD = 64, 500, 507, 520, 540, 560
ONLY_TWO_FIT = "CUDA out of memory, only two fit"


def fault_code(gate: Path) -> str:
    """The code of a function `add_faults(pipeline)`.

    The process's wall clock jumps by years at every call. The file `queued` in the gate has the
    number of the pipeline's images.
    """
    return f"""
import itertools
import threading
import time
from pathlib import Path

GATE = Path({str(gate)!r})


def add_faults(pipeline):
    import torch

    faults = {{
        {FAULT}: RuntimeError("zqx /opt/secret"),
        {EXCEEDS_MEMORY}: torch.OutOfMemoryError("CUDA out of memory zqx /opt/secret"),
        {LOST_DEVICE}: RuntimeError("CUDA error: device-side assert triggered"),
    }}
    jumps_s, true_time = itertools.cycle([0, 4e7, -4e7, 1]), time.time
    time.time = lambda: true_time() + next(jumps_s)
    network = pipeline.detector.model
    forward = network.forward

    def fail(images, sizes_hw):
        sides = [height for height, _ in sizes_hw]
        for side in set(sides) & set(faults):
            raise faults[side]
        if {MAX_TWO_PER_BATCH} in sides and len(sides) > 2:
            raise torch.OutOfMemoryError("{ONLY_TWO_FIT}")
        if {HELD} in sides:
            (GATE / "begun").touch()
            while not (GATE / "open").exists():
                time.sleep(0.01)
        return forward(images, sizes_hw)

    def write_queue():
        while True:
            new = GATE / "queued.new"
            new.write_text(str(pipeline.queued))
            new.replace(GATE / "queued")
            time.sleep(0.02)

    network.forward = fail
    threading.Thread(target=write_queue, daemon=True).start()
"""


def faulty_handler(gate: Path) -> str:
    """The code of a TorchServe handler with the faults."""
    return f"""
from d2serve.servers.torchserve.handler import Detectron2Handler
{fault_code(gate)}

class FaultyHandler(Detectron2Handler):
    def initialize(self, context):
        super().initialize(context)
        add_faults(self.pipeline)
"""


def faulty_site(gate: Path) -> str:
    """The code of a `sitecustomize.py`, which adds the faults where a process loads a model.

    The model loads once the file `load` exists in the gate.
    """
    return f"""
import sys
from importlib.machinery import PathFinder
{fault_code(gate)}

class AddFaults:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "d2serve.serving.loading":
            return None
        spec = PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module

        def execute_and_patch(module):
            execute(module)
            load = module.load_pipeline

            def load_faulty(*arguments, **options):
                while not (GATE / "load").exists():
                    time.sleep(0.02)
                pipeline = load(*arguments, **options)
                add_faults(pipeline)
                return pipeline

            module.load_pipeline = load_faulty

        spec.loader.exec_module = execute_and_patch
        return spec


sys.meta_path.insert(0, AddFaults)
"""
