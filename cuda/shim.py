"""Stand-ins for the libraries of CUDA, so that a program that uses them starts where they are not installed.

    shim.py CUDARC FOLDER

candle links CUDA's libraries by way of the crate cudarc, whose sources lie in CUDARC; a program linked against them does not even
start without a driver. So the linker is given static archives of the same names, written to FOLDER: of each function that
cudarc declares, a trampoline. The first call of a function opens the real library and looks the function up; every later one is
a jump. Where there is no such library, the function answers with an error of its own library, which candle reports as it
reports every other.

Linux on x86-64 only: trampolines have to hand on arguments of any number and type, and so are assembly.
"""

import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Library:
    """A library of CUDA's: where cudarc declares it, and what is known of it."""

    name: str
    declared: str
    # What the loader is asked for, in this order.
    files: tuple[str, ...]
    # The answer of a function whose library is not there: one of the errors that cudarc knows.
    error: int


LIBRARIES = (
    # CUDA_ERROR_STUB_LIBRARY: no other call of the driver ever gives it, so that a missing driver can be told from a missing GPU.
    Library("cuda", "driver", ("libcuda.so.1", "libcuda.so"), 34),
    # CUBLAS_STATUS_NOT_INITIALIZED.
    Library("cublas", "cublas", ("libcublas.so.13",), 1),
    Library("cublasLt", "cublaslt", ("libcublasLt.so.13",), 1),
    # CURAND_STATUS_INITIALIZATION_FAILED.
    Library("curand", "curand", ("libcurand.so.10",), 203),
    # NVRTC_ERROR_INTERNAL_ERROR.
    Library("nvrtc", "nvrtc", ("libnvrtc.so.13",), 11),
    # CUDNN_STATUS_NOT_INITIALIZED.
    Library("cudnn", "cudnn", ("libcudnn.so.9",), 1001),
)

DECLARATION = re.compile(r"^ +fn ((?:cu|nvrtc)\w+)\(.*?(?:\) -> (.+))?;$", re.MULTILINE)

C = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>

#define HIDDEN __attribute__((visibility("hidden")))

/* One for each function, set by its first call. */
HIDDEN void *shim_{name}_found[{count}];
static const char *const names[] = {{{names}}};
static const char *const files[] = {{{files}}};
static void *library;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void look(void) {{
    for (size_t i = 0; i < sizeof files / sizeof *files && !library; i++)
        library = dlopen(files[i], RTLD_NOW | RTLD_GLOBAL);
}}

static long fail(void) {{ return {error}; }}
static const char *fail_in_words(void) {{ return "lib{name} was not found"; }}
static long fail_with_nothing(void) {{ return 0; }}

/* 'w' for functions that give a text, 'n' for those that give a number or a pointer, 'e' for those that give an error. */
static const char kinds[] = "{kinds}";

HIDDEN void *shim_{name}_find(int number) {{
    pthread_once(&once, look);
    void *found = library ? dlsym(library, names[number]) : NULL;
    if (!found)
        found = kinds[number] == 'w' ? (void *)fail_in_words : kinds[number] == 'n' ? (void *)fail_with_nothing : (void *)fail;
    __atomic_store_n(&shim_{name}_found[number], found, __ATOMIC_RELEASE);
    return found;
}}
"""

# Whole and fractional arguments, in the order in which they are passed in registers; what is on the stack stays there.
INTEGERS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
FLOATS = range(8)


def declared(source: str) -> dict[str, str]:
    """The functions of a module of cudarc's, by name, with the kind of what they give."""
    functions = {}
    for name, result in DECLARATION.findall(source):
        if "c_char" in result:
            functions[name] = "w"
        elif result in ("", "usize", "u64") or "*" in result:
            functions[name] = "n"
        else:
            functions[name] = "e"
    return dict(sorted(functions.items()))


def assembly(name: str, functions: dict[str, str]) -> str:
    """A trampoline for each function, and what they share: finding the function with all arguments kept."""
    lines = [".text"]
    for number, function in enumerate(functions):
        lines += [
            f".globl {function}",
            f".type {function}, @function",
            f"{function}:",
            f"    movq shim_{name}_found+{8 * number}(%rip), %r11",
            "    testq %r11, %r11",
            "    jz 1f",
            "    jmp *%r11",
            f"1:  movl ${number}, %eax",
            "    jmp first_call",
        ]
    # Eight for the return address, six times eight pushed: 136 more, not 128, keep the stack at a multiple of sixteen.
    lines += ["first_call:"]
    lines += [f"    pushq %{register}" for register in INTEGERS]
    lines += ["    subq $136, %rsp"]
    lines += [f"    movups %xmm{number}, {16 * number}(%rsp)" for number in FLOATS]
    lines += ["    movl %eax, %edi", f"    call shim_{name}_find", "    movq %rax, %r11"]
    lines += [f"    movups {16 * number}(%rsp), %xmm{number}" for number in FLOATS]
    lines += ["    addq $136, %rsp"]
    lines += [f"    popq %{register}" for register in reversed(INTEGERS)]
    lines += ["    jmp *%r11", '.section .note.GNU-stack,"",@progbits', ""]
    return "\n".join(lines)


def archive(library: Library, functions: dict[str, str], folder: Path) -> None:
    """Writes lib<name>.a."""
    quoted = lambda texts: ", ".join(f'"{text}"' for text in texts)
    code = C.format(
        name=library.name,
        count=len(functions),
        names=quoted(functions),
        files=quoted(library.files),
        kinds="".join(functions.values()),
        error=library.error,
    )
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        (place / "find.c").write_text(code)
        (place / "trampolines.S").write_text(assembly(library.name, functions))
        for source in ("find.c", "trampolines.S"):
            command = ["cc", "-O2", "-fPIC", "-Wall", "-Wextra", "-c", source, "-o", f"{source}.o"]
            subprocess.run(command, cwd=place, check=True)
        target = folder / f"lib{library.name}.a"
        target.unlink(missing_ok=True)
        command = ["ar", "rcs", str(target.resolve()), "find.c.o", "trampolines.S.o"]
        subprocess.run(command, cwd=place, check=True)


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: shim.py CUDARC FOLDER")
    cudarc, folder = map(Path, sys.argv[1:])
    told = []
    for library in LIBRARIES:
        functions = declared((cudarc / "src" / library.declared / "sys" / "mod.rs").read_text())
        if not functions:
            sys.exit(f"shim.py: no functions of {library.name} in {cudarc}: is it another version of cudarc?")
        archive(library, functions, folder)
        told.append(f"{library.name} {len(functions)}")
    print("functions:", ", ".join(told))


if __name__ == "__main__":
    main()
