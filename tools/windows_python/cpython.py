"""CPython 3.11.2 for Windows, compiled from Debian's source package with mingw-w64."""

from __future__ import annotations

import os
import re
import shutil
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.windows_python.cache import RECIPE, RecipeError, call, made
from tools.windows_python.source_edits import edit_sources

__all__ = ["RUNTIME_DLLS", "prepare_python"]

VERSION = "3.11.2"
"""Of Debian 12's package python3.11; the edits fit no other."""
COMPILER = "x86_64-w64-mingw32-gcc-posix"
FREEZER = "/usr/bin/python3.11"
"""Compiles the modules that are frozen into the DLL: Debian's own Python of that version."""
# what pythoncore.vcxproj leaves to projects of their own
MORE_FILES = (
    "Modules/_bz2module.c", "Modules/_ctypes/_ctypes.c", "Modules/_ctypes/callbacks.c",
    "Modules/_ctypes/callproc.c", "Modules/_ctypes/cfield.c",
    "Modules/_ctypes/malloc_closure.c", "Modules/_ctypes/stgdict.c", "Modules/_multiprocessing/multiprocessing.c",
    "Modules/_multiprocessing/semaphore.c", "Modules/_queuemodule.c", "Modules/overlapped.c", "Modules/selectmodule.c",
    "Modules/socketmodule.c", "Modules/unicodedata.c",
)  # fmt: skip
FLAGS = (
    "-O1", "-w", "-fwrapv", "-std=gnu11", "-IPC", "-IInclude", "-IInclude/internal", "-IModules", "-IPython",
    "-DPy_BUILD_CORE", "-DPy_BUILD_CORE_BUILTIN", "-DPy_ENABLE_SHARED=1", "-DFFI_BUILDING", '-DMS_DLL_ID="3.11"',
    "-DWIN32", "-D_WIN32_WINNT=0x0603", "-DWINVER=0x0603", "-DNTDDI_VERSION=0x06030000", "-D_Py_HAVE_ZLIB",
    '-DVPATH=L""', '-DPREFIX=L""', '-DEXEC_PREFIX=L""', '-DVERSION=L"3.11"', '-DPLATLIBDIR=L"lib"', '-DPYTHONPATH=L""',
)  # fmt: skip
BZIP2 = ("blocksort", "bzlib", "compress", "crctable", "decompress", "huffman", "randtable")
"""bzip2's library, in seven files; importing ``torch.export`` asks for it, and mingw-w64 has none."""
LIBRARIES = (
    "-lz", "-lversion", "-lws2_32", "-lshlwapi", "-lpathcch", "-lbcrypt", "-ladvapi32", "-lole32", "-loleaut32",
    "-lrpcrt4", "-liphlpapi", "-luuid", "-luser32",
)  # fmt: skip
SYSTEM_DLLS = {"bcryptprimitives": ("-ladvapi32",)}
"""What Wine 8 lacks and wheels import, with the libraries of each; C sources in the folder ``recipe``."""
RUNTIME = "msvc-runtime==14.44.35112"
"""Microsoft's C++ runtime, as a wheel. Wine has its own, which ruins the heap when a C++ exception is caught; PyTorch
raises one for each wrong argument."""
RUNTIME_DLLS = (
    "concrt140", "msvcp140", "msvcp140_1", "msvcp140_2", "msvcp140_atomic_wait", "vcruntime140", "vcruntime140_1",
    "vcruntime140_threads",
)  # fmt: skip


def prepare_python() -> Path:
    """The folder with ``python.exe``, its DLLs and ``Lib``; compiled where the cache has none.

    Raises:
        RecipeError: A Debian package is missing, or a step failed.
    """
    sources = [Path(__file__), Path(__file__).with_name("source_edits.py"), *sorted(RECIPE.glob("*.c"))]
    return made("python", sources, _make)


def _make(place: Path) -> None:
    _check_programs()
    work = place / "work"
    work.mkdir()
    for archive in _download(work):
        call("tar", "xf", archive, where=work)
    source, libffi = work / f"Python-{VERSION}", next(work.glob("libffi-*/configure")).parent
    edit_sources(source)
    _freeze(source)
    _compile_libffi(libffi, work / "ffi")
    _compile(source, work, place)
    _microsoft_runtime(work, place)
    shutil.copytree(source / "Lib", place / "Lib", ignore=shutil.ignore_patterns("test", "idlelib", "tkinter"))
    shutil.rmtree(work)


def _check_programs() -> None:
    missing = [name for name in (COMPILER, FREEZER, "apt-get", "make", "tar") if not shutil.which(name)]
    if missing:
        raise RecipeError(
            f"{', '.join(missing)} not found. The recipe is for Debian 12: apt-get install gcc-mingw-w64-x86-64-posix "
            "libz-mingw-w64-dev make python3.11 wine64"
        )


def _download(work: Path) -> Iterator[Path]:
    """Fetch the original archives of CPython, libffi and bzip2 with apt, whose lists go into ``work``."""
    parts, lists = work / "apt.d", work / "lists"
    parts.mkdir()
    (lists / "partial").mkdir(parents=True)
    (work / "archives" / "partial").mkdir(parents=True)
    for path in sorted(Path("/etc/apt/sources.list.d").glob("*.sources")):
        stanzas = path.read_text(encoding="utf-8").split("\n\n")
        debian = [stanza for stanza in stanzas if re.search(r"^Signed-By: *\S*debian-archive", stanza, flags=re.M)]
        if debian:
            text = "\n\n".join(re.sub(r"^Types:.*$", "Types: deb-src", stanza, flags=re.M) for stanza in debian)
            (parts / path.name).write_text(text, encoding="utf-8")
    classic = Path("/etc/apt/sources.list")
    lines = re.findall(r"^deb(?: .*)$", classic.read_text(encoding="utf-8"), flags=re.M) if classic.exists() else []
    (work / "sources.list").write_text("".join(f"deb-src{line[3:]}\n" for line in lines), encoding="utf-8")
    options = (
        "-o", f"Dir::Etc::SourceParts={parts}", "-o", f"Dir::Etc::SourceList={work / 'sources.list'}",
        "-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={work / 'archives'}", "-o", "APT::Sandbox::User=root",
    )  # fmt: skip
    call("apt-get", *options, "-qq", "update", where=work)
    shown = call("apt-cache", *options, "showsrc", "python3.11", where=work)
    versions = re.findall(rf"^Version: ({re.escape(VERSION)}\S*)$", shown, flags=re.M)
    if not versions:
        raise RecipeError(f"apt offers no source package python3.11 {VERSION}: the recipe is for Debian 12")
    fetch = ("apt-get", *options, "-qq", "source", "--download-only", "--tar-only")
    failures = []
    # only the original archive is needed, which all revisions share; the newest one's may not be on the mirror
    for version in dict.fromkeys(versions):
        try:
            call(*fetch, f"python3.11={version}", where=work)
            break
        except RecipeError as error:
            failures.append(str(error))
    else:
        raise RecipeError("\n".join(failures))
    call(*fetch, "libffi", "bzip2", where=work)
    for name in ("python3.11", "libffi", "bzip2"):
        yield next(work.glob(f"{name}_*.orig.tar.*z*"))


def _freeze(source: Path) -> None:
    """What MSBuild would generate: the frozen modules, and their objects as C."""
    project = (source / "PCbuild/_freeze_module.vcxproj").read_text(encoding="utf-8-sig")
    frozen = {
        module: file.replace("..\\", "").replace("\\", "/")
        for file, module in re.findall(r'<None Include="([^"]+)">\s*<ModName>([^<]+)</ModName>', project)
    }
    frozen["getpath"] = "Modules/getpath.py"
    for folder in ("frozen_modules", "deepfreeze"):
        (source / "Python" / folder).mkdir(exist_ok=True)
    headers = {module: f"Python/frozen_modules/{module}.h" for module in frozen}
    for module, file in frozen.items():
        call(FREEZER, "-I", "Programs/_freeze_module.py", module, file, headers[module], where=source)
    pairs = [f"{header}:{module}" for module, header in headers.items()]
    call(FREEZER, "Tools/scripts/deepfreeze.py", *pairs, "-o", "Python/deepfreeze/deepfreeze.c", where=source)


def _compile_libffi(source: Path, prefix: Path) -> None:
    options = ("--host=x86_64-w64-mingw32", "--disable-shared", "--enable-static", "--disable-docs")
    call("./configure", *options, f"--prefix={prefix}", where=source, environment={"CC": COMPILER})
    call("make", f"-j{_processes()}", where=source)
    call("make", "install", where=source)


def _compile(source: Path, work: Path, place: Path) -> None:
    objects = work / "objects"
    objects.mkdir()
    project = (source / "PCbuild/pythoncore.vcxproj").read_text(encoding="utf-8-sig")
    listed = re.findall(r'<ClCompile Include="([^"$]+)"', project)
    files = [name.replace("..\\", "").replace("\\", "/") for name in listed] + list(MORE_FILES)
    bzip2 = next(work.glob("bzip2-*/bzlib.h")).parent
    files += [str(bzip2 / f"{name}.c") for name in BZIP2]

    def compile_one(name: str) -> Path:
        output = objects / f"{name.replace('/', '_')}.o"
        # _ctypes brings a DllMain of its own, python311.dll has one already
        more = ("-DDllMain=ctypes_DllMain",) if name.endswith("_ctypes/callbacks.c") else ()
        call(COMPILER, *FLAGS, f"-I{work / 'ffi/include'}", f"-I{bzip2}", *more, "-c", name, "-o", output, where=source)
        return output

    with ThreadPoolExecutor(_processes()) as pool:
        compiled = list(pool.map(compile_one, dict.fromkeys(files)))
    library, ffi = work / "libpython311.dll.a", work / "ffi/lib/libffi.a"
    dll = place / "python311.dll"
    call(
        COMPILER, "-shared", "-static", "-s", "-o", dll, *compiled, f"-Wl,--out-implib,{library}", ffi, *LIBRARIES,
        where=source,
    )  # fmt: skip
    options = ("-municode", "-DWIN32", "-IPC", "-IInclude", "-static", "-s")
    call(COMPILER, *options, "-o", place / "python.exe", "Programs/python.c", library, where=source)
    for name, libraries in SYSTEM_DLLS.items():  # they are found beside python.exe
        call(COMPILER, "-shared", "-s", "-o", place / f"{name}.dll", RECIPE / f"{name}.c", *libraries, where=source)
    _forwarder(source, work, place)


def _forwarder(source: Path, work: Path, place: Path) -> None:
    """``python3.dll``, which abi3 extension modules link to; it forwards to ``python311.dll``."""
    text = (source / "PC/python3dll.c").read_text(encoding="utf-8")
    exports = [f"  {name} = python311.{name}" for name in re.findall(r"^EXPORT_FUNC\((\w+)\)$", text, flags=re.M)]
    exports += [f"  {name} = python311.{name} DATA" for name in re.findall(r"^EXPORT_DATA\((\w+)\)$", text, flags=re.M)]
    (work / "python3.def").write_text("\n".join(["LIBRARY python3.dll", "EXPORTS", *exports, ""]), encoding="utf-8")
    (work / "empty.c").write_text("\n", encoding="utf-8")
    call(COMPILER, "-shared", "-o", place / "python3.dll", work / "empty.c", work / "python3.def", where=source)


def _microsoft_runtime(work: Path, place: Path) -> None:
    platform = ("--platform", "win_amd64", "--python-version", "3.11", "--only-binary=:all:", "--no-deps")
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check")
    call(*pip, *platform, "--dest", work / "runtime", RUNTIME, where=work)
    with zipfile.ZipFile(next((work / "runtime").glob("*.whl"))) as wheel:
        for name in RUNTIME_DLLS:
            (member,) = (m for m in wheel.namelist() if m.endswith(f"/Scripts/{name}.dll"))
            (place / f"{name}.dll").write_bytes(wheel.read(member))  # found beside python.exe


def _processes() -> int:
    return os.cpu_count() or 1 if sys.platform != "linux" else len(os.sched_getaffinity(0))
