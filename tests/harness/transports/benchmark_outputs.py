"""What `benchmark_model` prints, in the formats of its releases: written down from its sources and users' logs."""

from __future__ import annotations

WARMUP, RUNS = 2, 10

HEAD = """\
INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Min num runs: [10]
INFO: Min runs duration (seconds): [0]
INFO: Num threads: [2]
INFO: Min warmup runs: [2]
INFO: Graph: [/data/local/tmp/latlab/models/0f.tflite]
INFO: Signature to run: []
INFO: #threads used for CPU inference: [2]
"""
LOADED = "INFO: Loaded model /data/local/tmp/latlab/models/0f.tflite\nINFO: Initialized TensorFlow Lite runtime.\n"
TAIL = """\
INFO: The input model file size (MB): 16.9008
INFO: Initialized session in 12.75ms.
INFO: Running benchmark for at least 2 iterations and at least 0 seconds but terminate if exceeding 60 seconds.
INFO: count=2 first=14744 curr=13520 min=13520 max=14744 avg=14132 std=612{warm_percentiles}

INFO: Running benchmark for at least 10 iterations and at least 0 seconds but terminate if exceeding 60 seconds.
INFO: count=10 first=14850 curr=13315 min=13105 max=15765 avg=13520.2 std=470{percentiles}

INFO: Inference timings in us: Init: 12750, First inference: 14744, Warmup (avg): 14132, Inference (avg): 13520.2
INFO: Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual \
memory footprint of the model at runtime. Take the information at your discretion.
INFO: Memory footprint delta from the start of the tool (MB): init=14.4414 overall=14.8164
"""
PERCENTILES = {
    "warm_percentiles": " p5=13520 median=14744 p95=14744",
    "percentiles": " p5=13105 median=13498 p95=15765",
}
NO_PERCENTILES = {"warm_percentiles": "", "percentiles": ""}

XNNPACK = """\
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
VERBOSE: Replacing 64 out of 65 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 1 partitions for \
subgraph 0.
INFO: XNNPACK delegate created.
INFO: Explicitly applied XNNPACK delegate, and the model graph will be partially executed by the delegate w/ 1 \
delegate kernels.
"""
GPU = """\
INFO: Use gpu: [1]
INFO: Created TensorFlow Lite delegate for GPU.
INFO: GPU delegate created.
INFO: Loaded OpenCL library with dlopen.
VERBOSE: Replacing 65 out of 65 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 1 partitions for \
subgraph 0.
INFO: Initialized OpenCL-based API.
INFO: Created 1 GPU delegate kernels.
INFO: Explicitly applied GPU delegate, and the model graph will be completely executed by the delegate.
"""
GPU_PARTLY = """\
INFO: Created TensorFlow Lite delegate for GPU.
INFO: GPU delegate created.
VERBOSE: Replacing 54 out of 65 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 3 partitions for \
subgraph 0.
INFO: Explicitly applied GPU delegate, and the model graph will be partially executed by the delegate w/ 3 delegate \
kernels.
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
VERBOSE: Replacing 8 out of 14 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 2 partitions for \
subgraph 0.
"""
GPU_UNSUPPORTED = "WARN: GPU acceleration is unsupported on this platform.\n"
NNAPI = """\
INFO: Use NNAPI: [1]
INFO: NNAPI accelerators available: [google-edgetpu,nnapi-reference]
INFO: Created TensorFlow Lite delegate for NNAPI.
INFO: NNAPI delegate created.
VERBOSE: Replacing 65 out of 65 node(s) with delegate (TfLiteNnapiDelegate) node, yielding 1 partitions for \
subgraph 0.
INFO: Explicitly applied NNAPI delegate, and the model graph will be completely executed by the delegate.
"""
NNAPI_REFUSED = """\
INFO: NNAPI accelerators available: [google-edgetpu,nnapi-reference]
INFO: Created TensorFlow Lite delegate for NNAPI.
INFO: Though NNAPI delegate is explicitly applied, the model graph will not be executed by the delegate.
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
VERBOSE: Replacing 65 out of 65 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 1 partitions for \
subgraph 0.
"""
NNAPI_REFERENCE = NNAPI.replace("google-edgetpu,nnapi-reference", "nnapi-reference")

CURRENT_CPU = HEAD + LOADED + XNNPACK + TAIL.format(**PERCENTILES)
CURRENT_GPU = HEAD + LOADED + GPU + TAIL.format(**PERCENTILES)
CURRENT_GPU_PARTLY = HEAD + LOADED + GPU_PARTLY + TAIL.format(**PERCENTILES)
CURRENT_GPU_UNSUPPORTED = HEAD + LOADED + GPU_UNSUPPORTED + TAIL.format(**PERCENTILES)
CURRENT_NNAPI = HEAD + LOADED + NNAPI + TAIL.format(**PERCENTILES)
CURRENT_NNAPI_REFUSED = HEAD + LOADED + NNAPI_REFUSED + TAIL.format(**PERCENTILES)
CURRENT_NNAPI_REFERENCE = HEAD + LOADED + NNAPI_REFERENCE + TAIL.format(**PERCENTILES)
# Releases from 2.0 to 2.12: no severity on the tool's own lines, no percentiles, no number of all operators.
OLDER_CPU = (
    (HEAD + LOADED + TAIL.format(**NO_PERCENTILES)).replace("INFO: ", "").replace(
        "Initialized TensorFlow Lite runtime.\n",
        "INFO: Initialized TensorFlow Lite runtime.\nINFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n"
        "INFO: Replacing 64 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 2 partitions.\n",
    )
)  # fmt: skip
# Releases before 2.0.
OLDEST_CPU = """\
STARTING!
Min num runs: [10]
Num threads: [1]
Graph: [/data/local/tmp/latlab/models/0f.tflite]
Loaded model /data/local/tmp/latlab/models/0f.tflite
resolved reporter
Initialized session in 9.933ms
Running benchmark for at least 2 iterations and at least 0 seconds
count=2 first=127425 curr=66709 min=66709 max=127425 avg=97067 std=30358

Running benchmark for at least 10 iterations and at least 0 seconds
count=10 first=66753 curr=66800 min=66699 max=66838 avg=66767.6 std=39

Average inference timings in us: Warmup: 97067, Init: 9933, no stats: 66767.6
"""
# With --enable_op_profiling=true, after the summary.
OPERATORS = """\
INFO: Profiling Info for Benchmark Initialization:
============================== Run Order ==============================
\t             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t ModifyGraphWithDelegate\t   14.842\t   14.842\t 99.317%\t 99.317%\t  3428.000\t        1\tModifyGraphWithDelegate/0
\t         AllocateTensors\t    0.102\t    0.102\t  0.683%\t100.000%\t     0.000\t        1\tAllocateTensors/0

Number of nodes executed: 2
Timings (microseconds): count=1 curr=14944
Memory (bytes): count=0
2 nodes observed

INFO: Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
\t             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t Convolution (NHWC, F32) IGEMM\t    9.100\t    9.000\t 69.231%\t 69.231%\t     0.000\t        1\tDelegate/Convol\
ution (NHWC, F32) IGEMM:0
\t Fully Connected (NC, F32) GEMM\t    1.600\t    1.500\t 23.077%\t 92.308%\t     0.000\t        2\tDelegate/Fully \
Connected (NC, F32) GEMM:1
\t                 SOFTMAX\t    1.000\t    1.000\t  7.692%\t100.000%\t     0.000\t        1\t[Identity]:64

============================== Top by Computation Time ==============================
Number of nodes executed: 3
Timings (microseconds): count=10 first=13100 curr=13000 min=12900 max=13500 avg=13000 std=100
Memory (bytes): count=0
3 nodes observed
"""
CRASHES = {
    "a model that is none": HEAD
    + "INFO: Loaded model /data/local/tmp/latlab/models/0f.tflite\n"
    + "ERROR: Model provided has model identifier 'ello', should be 'TFL3'\n"
    + "ERROR: Failed to mmap model /data/local/tmp/latlab/models/0f.tflite\n",
    "an operator that it does not know": HEAD
    + LOADED
    + "ERROR: Encountered unresolved custom op: Foo.\nERROR: Node number 3 (Foo) failed to prepare.\n"
    + "ERROR: Failed to allocate tensors!\n",
    "a delegate that fails": HEAD
    + LOADED
    + "ERROR: Following operations are not supported by GPU delegate:\nGATHER_ND: Operation is not supported.\n"
    + "ERROR: Failed to apply GPU delegate.\n",
}
