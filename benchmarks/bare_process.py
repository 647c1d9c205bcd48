"""A loop over an inference runtime as anybody would write it, without latlab; `bare_loop.py` drives it.

    python bare_process.py RUNTIME THREADS CPU,CPU,...

Reads {"path": ..., "shape": [...], "seed": n} and answers {"handle": n}; reads {"handle": n, "warmup": n,
"runs": n} and answers {"samples_ns": [...]}. Nothing is imported but the runtime and numpy.
"""

import contextlib
import json
import os
import sys
import time

import numpy as np

AROUND = contextlib.ExitStack()
"""What is on for the whole life of this process."""


def open_onnxruntime(path, array, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: array}
    return lambda: session.run(None, feed)


def open_tflite(path, array, threads):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=threads)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], array)
    return interpreter.invoke


def open_torchscript(path, array, threads):
    import torch

    torch.set_num_threads(threads)
    # Around the loop and not in it: to enter it for every inference costs some 2 % of a network of 3 ms.
    AROUND.enter_context(torch.inference_mode())
    module = torch.jit.load(path)
    tensor = torch.from_numpy(array)
    return lambda: module(tensor)


def main(runtime, threads, cpus):
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(cpu) for cpu in cpus.split(",")})
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a runtime prints is no reply
    networks = []
    for line in sys.stdin:
        request = json.loads(line)
        if "path" in request:
            array = np.random.default_rng(request["seed"]).standard_normal(request["shape"], dtype=np.float32)
            networks.append(globals()[f"open_{runtime}"](request["path"], array, int(threads)))
            reply = {"handle": len(networks) - 1}
        else:
            infer = networks[request["handle"]]
            for _ in range(request["warmup"]):
                infer()
            samples = []
            for _ in range(request["runs"]):
                start = time.perf_counter_ns()
                infer()
                samples.append(time.perf_counter_ns() - start)
            reply = {"samples_ns": samples}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
