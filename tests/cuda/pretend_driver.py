"""A pretend libcuda.so.1, on which the real PyCUDA and cuda.bindings run on a machine without a GPU.

Device memory is host memory, copies are memcpy, work on streams is done at once, and a launch runs the
kernel's source, compiled by g++. It does not show races, missing synchronisation or wrong device code.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
from pathlib import Path

from . import host_kernel

_SOURCE = r"""
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
typedef int Result;
typedef uint64_t Address;
struct Function { char name[128]; };
int run_kernel(const char *name, unsigned gx, unsigned gy, unsigned block, void **parameters);
int run_packed(const char *name, unsigned gx, unsigned gy, unsigned block, const void *packed);
static long allocations, launches, copies, limit_bytes = 1L << 33;
static __thread void *stack[64];
static __thread int depth;
#define current (depth ? stack[depth - 1] : 0)
static int context, opened = -1, devices = DEVICES, driver = 13000;

long pretend_launches(void) { return launches; }
long pretend_copies_on_device(void) { return copies; }
void pretend_version(int version) { driver = version; }
void pretend_devices(int count) { devices = count; }
void pretend_limit(long bytes) { limit_bytes = bytes; }
long pretend_allocations(void) { return allocations; }

// PRETEND_LOSS=INDEX:LAUNCHES: that device drops out after so many launches, in every process that uses it.
static int lost(void) {
  const char *text = getenv("PRETEND_LOSS");
  return text && atoi(text) == opened && launches >= atol(strchr(text, ':') + 1) ? 719 : 0;
}
// PRETEND_SLOW=INDEX:MILLISECONDS: each launch on that device takes so long.
static void take_time(void) {
  const char *text = getenv("PRETEND_SLOW");
  if (text && atoi(text) == opened) usleep(1000 * atol(strchr(text, ':') + 1));
}
static Result handle(void **out) { *out = calloc(1, 64); return 0; }
static Result memory(Address *out, size_t bytes) {
  void *block;
  if (!current) return 201;
  if ((long)bytes > limit_bytes || posix_memalign(&block, 256, bytes)) return 2;
  memset(block, 0xA5, bytes);
  *out = (Address)(uintptr_t)block;
  allocations++;
  return 0;
}
Result cuInit(unsigned flags) { return devices < 0 ? 100 : 0; }
Result cuDriverGetVersion(int *version) { *version = driver; return 0; }
Result cuGetErrorString(Result error, const char **text) { *text = "pretended error"; return 0; }
Result cuDeviceGetCount(int *count) { *count = devices; return 0; }
Result cuDeviceGet(int *device, int index) { *device = index; return index < devices ? 0 : 101; }
Result cuDeviceGetName(char *name, int bytes, int device) { snprintf(name, bytes, "pretended GPU"); return 0; }
Result cuDeviceGetPCIBusId(char *id, int bytes, int device) {
  snprintf(id, bytes, "0000:0%d:00.0", device + 1);
  return 0;
}
Result cuDeviceComputeCapability(int *major, int *minor, int device) { *major = 9; *minor = 0; return 0; }
Result cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)limit_bytes; return 0; }
Result cuDeviceGetAttribute(int *value, int attribute, int device) {
  *value = attribute == 75 ? 9 : attribute == 76 ? 0 : 1024;
  return 0;
}
Result cuDevicePrimaryCtxRetain(void **out, int device) { *out = &context; opened = device; return 0; }
Result cuDevicePrimaryCtxRelease_v2(int device) { return 0; }
Result cuCtxPushCurrent_v2(void *pushed) { stack[depth++] = pushed; return 0; }
Result cuCtxPopCurrent_v2(void **out) {
  if (!depth) return 201;
  if (out) *out = current;
  depth--;
  return 0;
}
static uint64_t pool_keeps;
uint64_t pretend_pool_keeps(void) { return pool_keeps; }
Result cuDeviceGetDefaultMemPool(void **pool, int device) { *pool = &pool_keeps; return 0; }
Result cuMemPoolSetAttribute(void *pool, int attribute, uint64_t *value) {
  if (pool != &pool_keeps || attribute != 4) return 1;
  pool_keeps = *value;
  return 0;
}
Result cuCtxGetDevice(int *device) { *device = 0; return current ? 0 : 201; }
Result cuCtxGetApiVersion(void *asked, unsigned *version) { *version = 13000; return 0; }
Result cuCtxSynchronize(void) { return 0; }
Result cuCtxDetach(void *detached) { return 0; }
Result cuMemAlloc_v2(Address *out, size_t bytes) { return memory(out, bytes); }
Result cuMemFree_v2(Address address) { free((void *)(uintptr_t)address); allocations--; return 0; }
Result cuMemGetInfo_v2(size_t *left, size_t *total) { *left = *total = (size_t)limit_bytes; return 0; }
Result cuMemHostAlloc(void **out, size_t bytes, unsigned flags) { return memory((Address *)out, bytes); }
Result cuMemFreeHost(void *block) { free(block); allocations--; return 0; }
Result cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t bytes, void *stream) {
  memcpy((void *)(uintptr_t)to, from, bytes);
  return 0;
}
Result cuMemcpyDtoHAsync_v2(void *to, Address from, size_t bytes, void *stream) {
  memcpy(to, (void *)(uintptr_t)from, bytes);
  return 0;
}
Result cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, void *stream) {
  if (to < from + bytes && from < to + bytes) return 1;
  memcpy((void *)(uintptr_t)to, (void *)(uintptr_t)from, bytes);
  copies++;
  return 0;
}
Result cuStreamCreate(void **out, unsigned flags) { return flags == 1 ? handle(out) : 1; }
Result cuStreamDestroy_v2(void *stream) { free(stream); return 0; }
Result cuStreamSynchronize(void *stream) { return lost(); }
Result cuStreamWaitEvent(void *stream, void *event, unsigned flags) { return 0; }
Result cuEventCreate(void **out, unsigned flags) { return handle(out); }
Result cuEventDestroy_v2(void *event) { free(event); return 0; }
Result cuEventRecord(void *event, void *stream) { return 0; }
Result cuEventSynchronize(void *event) { return lost(); }
// Recorded work: a host function per step, which the pretended TensorRT hands in while its stream is capturing.
struct Graph { int steps; void (*step[8])(void); };
static __thread void *capturing;
static __thread struct Graph recorded;
static long graph_launches;
long pretend_graph_launches(void) { return graph_launches; }
int pretend_is_capturing(void *stream) { return capturing && capturing == stream; }
void pretend_record(void (*step)(void)) { recorded.step[recorded.steps++] = step; }
Result cuStreamBeginCapture_v2(void *stream, int mode) {
  if (!current || mode != 1 || capturing) return 1;
  capturing = stream;
  recorded.steps = 0;
  return 0;
}
Result cuStreamEndCapture(void *stream, struct Graph **out) {
  if (capturing != stream) return 401;
  capturing = 0;
  *out = malloc(sizeof recorded);
  **out = recorded;
  return 0;
}
Result cuGraphInstantiateWithFlags(struct Graph **out, struct Graph *graph, unsigned long long flags) {
  if (getenv("PRETEND_NO_GRAPHS")) return 900;
  *out = malloc(sizeof *graph);
  **out = *graph;
  allocations++;
  return 0;
}
Result cuGraphDestroy(void *graph) { free(graph); return 0; }
Result cuGraphExecDestroy(void *graph) { free(graph); allocations--; return 0; }
Result cuGraphLaunch(struct Graph *graph, void *stream) {
  if (!current) return 201;
  for (int i = 0; i < graph->steps; i++) graph->step[i]();
  graph_launches++;
  return 0;
}
Result cuModuleLoadDataEx(void **out, const void *image, unsigned n, void *options, void *values) {
  return handle(out);
}
Result cuModuleLoadData(void **out, const void *image) { return handle(out); }
Result cuModuleUnload(void *module) { free(module); return 0; }
Result cuModuleGetFunction(void **out, void *module, const char *name) {
  struct Function *function = calloc(1, sizeof *function);
  strncpy(function->name, name, sizeof function->name - 1);
  *out = function;
  return 0;
}
Result cuFuncSetBlockShape(void *function, int x, int y, int z) { return 0; }
// Gives the newest version of a function, as the real driver does.
Result cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status) {
  char newest[160];
  void *self = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  snprintf(newest, sizeof newest, "%s_v2", name);
  *function = dlsym(self, newest);
  if (!*function) *function = dlsym(self, name);
  if (status) *status = *function ? 0 : 1;
  return *function ? 0 : 500;
}
Result cuLaunchKernel(struct Function *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                      unsigned bz, unsigned shared, void *stream, void **params, void **extra) {
  if (!current) return 201;
  if (!gx || !gy || !gz || !bx || gy > 65535 || gz > 65535 || bx * by * bz > 1024) return 1;
  launches++;
  take_time();
  if (params) return run_kernel(function->name, gx, gy, bx, params) ? 98 : 0;
  for (int i = 0; extra && extra[i]; i += 2)
    if ((uintptr_t)extra[i] == 1) return run_packed(function->name, gx, gy, bx, extra[i + 1]) ? 98 : 0;
  return 1;
}
"""


def install(pycuda: Path | None, folder: Path) -> ctypes.CDLL:
    """Build the driver, and load it into this process."""
    return ctypes.CDLL(str(build(pycuda, folder)), mode=ctypes.RTLD_GLOBAL)


def build(pycuda: Path | None, folder: Path, devices: int = 1) -> Path:
    """Compile the driver, with all that PyCUDA's extension needs if there is one, as `folder`/libcuda.so.1.

    Functions that it lacks fail with CUDA's error 801, "not supported". `devices` is the number of GPUs.
    """
    needed: set[str] = set()
    if pycuda is not None:
        extension = next((pycuda / "pycuda").glob("_driver*.so"))
        listed = subprocess.run(["nm", "-D", "--undefined-only", extension], check=True, capture_output=True, text=True)
        needed = set(re.findall(r" U (cu[A-Z]\w+)", listed.stdout))
        needed -= set(re.findall(r"^Result (cu\w+)", _SOURCE, re.MULTILINE))
    source = folder / "pretend.c"
    source.write_text(_SOURCE + "".join(f"Result {name}(void) {{ return 801; }}\n" for name in sorted(needed)))
    library = folder / "libcuda.so.1"
    driver = folder / "pretend.o"
    subprocess.run(["cc", "-c", "-fPIC", "-O1", "-w", f"-DDEVICES={devices}", "-o", driver, source], check=True)
    flags = ["-shared", "-Wl,-soname,libcuda.so.1", "-ldl"]
    subprocess.run(["g++", *flags, "-o", library, driver, host_kernel.compile_object(folder)], check=True)
    return library
