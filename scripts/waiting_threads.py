"""What every server's environment says of the network's threads while they wait for each other."""

# OpenMP lets them spin by default. Where other processes, such as a second worker, want the same
# cores, a forward then takes many times as long.
WAITING_THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}
