"""Runs a program on a GPU that says it were of another compute capability, to find out what depends on that alone.

    python tests/gpu/as_capability.py 8.9 python tests/gpu/other_versions.py run engines

TensorRT-RTX 1.7 looks at the compute capability before it looks at the version of an engine, and refuses all of them on
a GPU that is not on its list. With this it goes on to the version. Kernels are then compiled for another GPU, so that
what comes after loading means nothing.

The program finds a ``libcuda.so.1`` that passes everything on to the driver's, but for the two attributes. Needs gcc
and nm, and a program whose CUDA runtime asks the driver for its functions by name, as CUDA 12 and 13 do.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

OWN = ("cuDeviceGetAttribute", "cuDeviceComputeCapability", "cuGetProcAddress", "cuGetProcAddress_v2")
SOURCE = r"""
#include <dlfcn.h>
#include <string.h>

typedef int (*attribute_t)(int *, int, int);
typedef int (*by_name_t)(const char *, void **, int, unsigned long long, void *);

static void *driver(void) {
  static void *handle;
  return handle ? handle : (handle = dlopen(DRIVER, RTLD_NOW | RTLD_LOCAL));
}

#define PASS(name) \
  __attribute__((visibility("hidden"), used)) void *to_##name; \
  __attribute__((naked)) void name(void) { __asm__("jmp *to_" #name "(%rip)"); }
@pass@
#undef PASS

__attribute__((constructor)) static void fill(void) {
@fill@
}

int cuDeviceGetAttribute(int *value, int attribute, int device) {
  int status = ((attribute_t)dlsym(driver(), "cuDeviceGetAttribute"))(value, attribute, device);
  if (!status && attribute == 75) *value = MAJOR;
  if (!status && attribute == 76) *value = MINOR;
  return status;
}

int cuDeviceComputeCapability(int *major, int *minor, int device) {
  int status = cuDeviceGetAttribute(major, 75, device);
  return status ? status : cuDeviceGetAttribute(minor, 76, device);
}

int cuGetProcAddress_v2(const char *name, void **address, int version, unsigned long long flags, void *found) {
  int status = ((by_name_t)dlsym(driver(), "cuGetProcAddress_v2"))(name, address, version, flags, found);
  if (!address || !*address) return status;
  if (!strcmp(name, "cuDeviceGetAttribute")) *address = (void *)cuDeviceGetAttribute;
  if (!strcmp(name, "cuDeviceComputeCapability")) *address = (void *)cuDeviceComputeCapability;
  if (!strcmp(name, "cuGetProcAddress")) *address = (void *)cuGetProcAddress_v2;
  return status;
}

int cuGetProcAddress(const char *name, void **address, int version, unsigned long long flags) {
  return cuGetProcAddress_v2(name, address, version, flags, 0);
}
"""


def loaded_from(library: str) -> Path:
    """The file that the loader takes for ``library``."""
    ctypes.CDLL(library)
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    return Path(next(line.split()[-1] for line in maps.splitlines() if f"/{library.split('.so')[0]}.so" in line))


def make(driver: Path, folder: Path, major: int, minor: int) -> None:
    """Compile ``libcuda.so.1`` into ``folder``."""
    listed = subprocess.run(["nm", "-D", "--defined-only", str(driver)], check=True, capture_output=True, text=True)
    names = set(re.findall(r" T (cu\w+)", listed.stdout)).difference(OWN)
    source = SOURCE.replace("@pass@", "\n".join(f"PASS({name})" for name in sorted(names)))
    source = source.replace("@fill@", "\n".join(f'  to_{name} = dlsym(driver(), "{name}");' for name in sorted(names)))
    (folder / "driver.c").write_text(source, encoding="utf-8")
    defines = [f'-DDRIVER="{driver}"', f"-DMAJOR={major}", f"-DMINOR={minor}"]
    target = ["-o", str(folder / "libcuda.so.1"), str(folder / "driver.c"), "-ldl"]
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", *defines, *target], check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capability", help="as 8.9")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make(loaded_from("libcuda.so.1"), Path(folder), *map(int, arguments.capability.split(".")))
        paths = [folder, *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(paths)}
        sys.exit(subprocess.run(arguments.command, env=environment, check=False).returncode)
