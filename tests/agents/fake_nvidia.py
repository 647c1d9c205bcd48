"""A stand-in, in C, for the functions of NVIDIA's libraries that latlab calls; tests set what it reports."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

NVML = r"""
#include <string.h>
#define NOT_SUPPORTED 3
#define NOT_FOUND 6
#define INSUFFICIENT_SIZE 7
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned pid; unsigned long long memory; unsigned gpu, compute; } process_t;
static int devices[2];

unsigned init_status = 0, refused = 0, sm_mhz = 1980, max_mhz = 1980, default_mhz = 1755, reasons = 0;
unsigned process_count = 0, first_pid = 1000;

static int known(void *device) { return device == &devices[0] || device == &devices[1]; }
static int give(void *device, unsigned *to, unsigned value)
{
    if (!known(device) || refused) return NOT_SUPPORTED;
    *to = value;
    return 0;
}
int nvmlInit_v2(void) { return init_status; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { strncpy(text, "570.86.15", size); return 0; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = 12080; return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = &devices[index]; return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char *id, void **device)
{
    if (strcmp(id, "0000:17:00.0")) return NOT_FOUND;
    *device = &devices[1];
    return 0;
}
int nvmlDeviceGetName(void *device, char *text, unsigned size)
{
    strncpy(text, device == &devices[0] ? "NVIDIA T4" : "NVIDIA H200", size);
    return refused ? NOT_SUPPORTED : 0;
}
int nvmlDeviceGetClockInfo(void *d, int type, unsigned *v) { return type == 1 ? give(d, v, sm_mhz) : NOT_SUPPORTED; }
int nvmlDeviceGetMaxClockInfo(void *d, int type, unsigned *v)
{
    return type == 1 ? give(d, v, max_mhz) : NOT_SUPPORTED;
}
int nvmlDeviceGetDefaultApplicationsClock(void *d, int type, unsigned *v)
{
    return type == 0 && default_mhz ? give(d, v, default_mhz) : NOT_SUPPORTED;
}
int nvmlDeviceGetTemperature(void *d, int sensor, unsigned *v) { return sensor == 0 ? give(d, v, 61) : NOT_SUPPORTED; }
int nvmlDeviceGetIndex(void *d, unsigned *v) { return give(d, v, d == &devices[1]); }
int nvmlDeviceGetTotalEnergyConsumption(void *d, unsigned long long *v)
{
    if (!known(d) || refused) return NOT_SUPPORTED;
    *v = 5000000000ull;
    return 0;
}
int nvmlDeviceGetPowerUsage(void *d, unsigned *v) { return give(d, v, 123500); }
int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory)
{
    if (!known(device) || refused) return NOT_SUPPORTED;
    memory->total = 1000ull << 20;
    memory->used = 250ull << 20;
    memory->free = memory->total - memory->used;
    return 0;
}
static int get_reasons(void *device, unsigned long long *bits)
{
    if (!known(device) || refused) return NOT_SUPPORTED;
    *bits = reasons;
    return 0;
}
static int get_processes(void *device, unsigned *count, process_t *processes)
{
    unsigned room = *count;
    if (!known(device) || refused) return NOT_SUPPORTED;
    *count = process_count;
    if (room < process_count) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < process_count; ++i) {
        process_t process = { first_pid + i, 1 << 20, ~0u, ~0u };
        processes[i] = process;
    }
    return 0;
}
#ifdef OLD
int nvmlDeviceGetCurrentClocksThrottleReasons(void *d, unsigned long long *bits) { return get_reasons(d, bits); }
int nvmlDeviceGetComputeRunningProcesses_v2(void *d, unsigned *n, process_t *p) { return get_processes(d, n, p); }
#else
int nvmlDeviceGetCurrentClocksEventReasons(void *d, unsigned long long *bits) { return get_reasons(d, bits); }
int nvmlDeviceGetComputeRunningProcesses_v3(void *d, unsigned *n, process_t *p) { return get_processes(d, n, p); }
#endif
"""

CUDA = r"""
#include <stdio.h>
#define INVALID_VALUE 1
#define NO_DEVICE 100
#define INVALID_CONTEXT 201
typedef struct { float at_ms; } event_t;
static int primary, stream;
static void *current;
static event_t events[2];
static int made;
unsigned init_status = 0, synchronize_status = 0, waits = 0;
float now_ms = 0;

int cuInit(unsigned flags) { return flags ? INVALID_VALUE : (int)init_status; }
int cuDeviceGet(int *device, int ordinal) { *device = 7 + ordinal; return 0; }
int cuDeviceGetPCIBusId(char *text, int size, int device)
{
    snprintf(text, size, "0000:17:00.0");
    return device == 7 ? 0 : INVALID_VALUE;
}
int cuDevicePrimaryCtxRetain(void **context, int device)
{
    *context = &primary;
    return device == 7 ? 0 : INVALID_VALUE;
}
int cuCtxSetCurrent(void *context) { current = context; return 0; }
int cuStreamCreate(void **made_stream, unsigned flags)
{
    if (current != &primary) return INVALID_CONTEXT;
    *made_stream = &stream;
    return flags == 1 ? 0 : INVALID_VALUE;
}
int cuEventCreate(void **event, unsigned flags) { *event = &events[made++ % 2]; return flags; }
int cuEventRecord(event_t *event, void *on)
{
    if (on != &stream) return INVALID_VALUE;
    event->at_ms = now_ms;
    return 0;
}
int cuCtxSynchronize(void) { ++waits; return synchronize_status; }
int cuEventElapsedTime(float *ms, event_t *begin, event_t *end) { *ms = end->at_ms - begin->at_ms; return 0; }
int cuGetErrorName(int status, const char **name)
{
    *name = "CUDA_ERROR_UNKNOWN";
    if (status == 2) *name = "CUDA_ERROR_OUT_OF_MEMORY";
    if (status == NO_DEVICE) *name = "CUDA_ERROR_NO_DEVICE";
    return 0;
}
"""


def build(folder: Path, source: str, *options: str) -> str:
    """Compile the library and return its path."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("the stand-ins for NVIDIA's libraries need a C compiler")
    written, library = folder / "fake.c", folder / "libfake.so"
    written.write_text(source)
    subprocess.run([compiler, "-shared", "-fPIC", "-Wall", "-Werror", *options, "-o", library, written], check=True)
    return str(library)


def set_values(library: str, **values: float) -> None:
    """Set what the library reports, in this process."""
    loaded = ctypes.CDLL(library)
    for name, value in values.items():
        kind = ctypes.c_float if isinstance(value, float) else ctypes.c_uint
        kind.in_dll(loaded, name).value = value  # type: ignore[assignment]
