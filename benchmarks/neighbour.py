"""A noisy neighbour: a process that keeps one CPU busy in bursts until its parent ends; `retest.py` starts it.

    python neighbour.py CPU SEED BUSY_S IDLE_S

Bursts and the pauses between them have random lengths, exponential with these means; the same seed gives the same
lengths. The process multiplies matrices that do not fit into the CPU's own caches, as a compiler's data does not.
"""

import os
import random
import sys
import time


def main(cpu, seed, busy_s, idle_s):
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(cpu)})
    import numpy as np

    rng = random.Random(int(seed))
    matrix = np.random.default_rng(0).random((512, 512), dtype=np.float32)
    parent = os.getppid()
    while os.getppid() == parent:
        end = time.perf_counter() + rng.expovariate(1 / float(busy_s))
        while time.perf_counter() < end:
            matrix @ matrix
        time.sleep(rng.expovariate(1 / float(idle_s)))


if __name__ == "__main__":
    main(*sys.argv[1:])
