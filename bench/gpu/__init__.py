"""All that has to be known of a machine with a GPU, in one short run: `python -m bench.gpu`."""
