"""Holds the trampolines of shim.py against a library that is there and one that is not. Needs a C compiler, and no CUDA.

    shim_test.py
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True
from shim import Library, archive, declared

# More arguments of each kind than there are registers, and narrow ones, as cuBLAS takes them.
SIGNATURE = """int fakeMany(long a, int b, void *c, long d, short e, long f, double g, float h, double i, double j,
                 double k, double l, double m, double n, double o, long p, double q, char r)"""
CALL = "fakeMany(1, -2, (void *)3, 4, 5, 6, 1.5, 2.5f, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5, 9.5, 7, 10.5, 8)"

LIBRARY = (
    SIGNATURE
    + """ {
    return a == 1 && b == -2 && c == (void *)3 && d == 4 && e == 5 && f == 6 && g == 1.5 && h == 2.5f && i == 3.5 && j == 4.5 &&
           k == 5.5 && l == 6.5 && m == 7.5 && n == 8.5 && o == 9.5 && p == 7 && q == 10.5 && r == 8 ? 4711 : -1;
}
const char *fakeText(int a) { return a == 5 ? "real" : "wrong"; }
unsigned long fakeVersion(void) { return 130000; }
"""
)

PROGRAM = (
    "#include <pthread.h>\n#include <stdio.h>\n"
    + SIGNATURE
    + """;
int fakeMissing(int a);
const char *fakeText(int a);
unsigned long fakeVersion(void);
static void *ask(void *results) {
    for (int i = 0; i < 1000; i++) ((int *)results)[i] = """
    + CALL
    + """;
    return results;
}
int main(void) {
    static int results[8][1000];
    pthread_t threads[8];
    for (int i = 0; i < 8; i++) if (pthread_create(&threads[i], NULL, ask, results[i])) return 1;
    for (int i = 0; i < 8; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < 8000; i++) if (results[i / 1000][i % 1000] != results[0][0]) return 2;
    printf("%d %d %s %lu", results[0][0], fakeMissing(1), fakeText(5), fakeVersion());
}
"""
)

DECLARATIONS = """
pub unsafe fn fakeOther() -> cublasStatus_t {
        extern "C" {
            fn cublasSet(handle: cublasHandle_t, n: i64) -> cublasStatus_t;
            fn cublasGetStatusString(status: cublasStatus_t) -> *const ::core::ffi::c_char;
            fn cudnnGetVersion() -> usize;
            fn cublasXerbla(name: *const ::core::ffi::c_char, info: ::core::ffi::c_int);
        }
"""


def holds(what: str, found: object, expected: object) -> None:
    if found != expected:
        sys.exit(f"shim_test.py: {what}: found {found!r}, expected {expected!r}")


def main() -> None:
    kinds = {"cublasGetStatusString": "w", "cublasSet": "e", "cublasXerbla": "n", "cudnnGetVersion": "n"}
    holds("what cudarc declares", declared(DECLARATIONS), kinds)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        functions = {"fakeMany": "e", "fakeMissing": "e", "fakeText": "w", "fakeVersion": "n"}
        archive(Library("fake", "", ("libfake.so.2", "libfake.so.1"), 34), functions, folder)
        (folder / "library.c").write_text(LIBRARY)
        (folder / "program.c").write_text(PROGRAM)
        (folder / "real").mkdir()
        for command in (
            ["cc", "-O2", "-shared", "-fPIC", "library.c", "-o", "real/libfake.so.1"],
            ["cc", "-O2", "program.c", "-o", "program", "-L.", "-lfake", "-pthread"],
        ):
            subprocess.run(command, cwd=folder, check=True)

        def run(path: str) -> str:
            environment = {**os.environ, "LD_LIBRARY_PATH": path}
            return subprocess.run(["./program"], cwd=folder, env=environment, check=True, capture_output=True, text=True).stdout

        holds("without the library", run("/nowhere"), "34 34 libfake was not found 0")
        holds("with it", run(str(folder / "real")), "4711 34 real 130000")
    print("the trampolines hold")


if __name__ == "__main__":
    main()
