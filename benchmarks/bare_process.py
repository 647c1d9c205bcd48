"""Times a network in an inference runtime the ordinary way, without latlab; `agreement.py` starts it.

    python bare_process.py RUNTIME THREADS CPU,CPU,...

Reads {"path": ..., "shape": [...], "seed": n} and answers {"handle": n}; reads {"handle": n, "warmup": n,
"runs": n} and answers {"samples_ns": [...], "calls": n}. ONNX Runtime and the TFLite interpreter are called in a loop;
TorchScript is timed by `torch.utils.benchmark`, whose samples are means of a number of calls that it chooses. Only the
runtime and numpy are imported.
"""

import contextlib
import json
import os
import sys
import time

import numpy as np

AROUND = contextlib.ExitStack()
"""Contexts that stay open for the whole life of this process."""


def in_a_loop(infer):
    def take(warmup, runs):
        for _ in range(warmup):
            infer()
        samples = []
        for _ in range(runs):
            start = time.perf_counter_ns()
            infer()
            samples.append(time.perf_counter_ns() - start)
        return samples, 1

    return take


def open_onnxruntime(path, array, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: array}
    return in_a_loop(lambda: session.run(None, feed))


def open_tflite(path, array, threads):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=threads)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], array)
    return in_a_loop(interpreter.invoke)


def open_torchscript(path, array, threads):
    import torch
    from torch.utils.benchmark import Timer

    # Around the timer and not in its statement: to enter it for every inference costs some 2 % of a network of 3 ms.
    AROUND.enter_context(torch.inference_mode())
    module, tensor = torch.jit.load(path), torch.from_numpy(array)
    timer = Timer("module(tensor)", globals={"module": module, "tensor": tensor}, num_threads=threads)

    usual_s = timer.timeit(2).mean  # the first two calls compile

    def take(warmup, runs):
        nonlocal usual_s
        found = timer.blocked_autorange(min_run_time=runs * usual_s)  # it warms up by itself
        usual_s = found.median
        return [round(1e9 * seconds) for seconds in found.times], found.number_per_run

    return take


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
            samples, calls = networks[request["handle"]](request["warmup"], request["runs"])
            reply = {"samples_ns": samples, "calls": calls}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
