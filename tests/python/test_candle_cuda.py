"""What stands in for CUDA's libraries in a build with candle's CUDA kernels (scripts/candle_cuda/stand_in)."""

import os
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
STUB_LIBRARY, NO_DEVICE, NOT_SUPPORTED = 34, 100, 801
NOT_INITIALIZED = 1

PROGRAM = r"""
#include <stdio.h>

int cuInit(unsigned flags);
int cuProfilerStart(void);
int curandGenerateNormal(void* generator, float* numbers, size_t count, float mean, float deviation);
int cublasCreate_v2(void** handle);
const char* cublasGetStatusString(int status);
int cublasSgemm_v2(void* handle, int a, int b, int m, int n, int k, const float* alpha, const float* left, int lda,
                   const float* right, int ldb, const float* beta, float* out, int ldc);

int main(void) {
    float one = 1, three = 3, out = 0;
    void* handle = 0;
    printf("%d %d\n", cuInit(0), cuProfilerStart());
    printf("%d\n", cublasCreate_v2(&handle));
    printf("%s\n", cublasGetStatusString(1));
    // Twice: a function is found with its first call and known with its second.
    for (int call = 0; call < 2; call++) {
        printf("%d", cublasSgemm_v2(handle, 1, 2, 3, 4, 5, &one, &three, 6, &three, 7, &one, &out, 8));
        printf(" %d", curandGenerateNormal(handle, &out, 40, 0.5f, 1.25f));
        printf(" %g\n", out);
    }
}
"""

# Answer with what they were called with, in registers of both kinds and on the stack.
CUBLAS = r"""
int cublasCreate_v2(void** handle) { *handle = handle; return 0; }
const char* cublasGetStatusString(int status) { return status == 1 ? "not initialised" : "?"; }
int cublasSgemm_v2(void* handle, int a, int b, int m, int n, int k, const float* alpha, const float* left, int lda,
                   const float* right, int ldb, const float* beta, float* out, int ldc) {
    *out = *alpha * *left + *right * *beta;
    return handle ? a + 10 * b + 100 * m + 1000 * n + 10000 * k + 100000 * (lda + ldb + ldc) : -1;
}
"""
CURAND = r"""
#include <stddef.h>
int curandGenerateNormal(void* generator, float* numbers, size_t count, float mean, float deviation) {
    *numbers += mean * deviation;
    return generator ? (int)count : -1;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that is linked with the stand-ins."""
    directory = tmp_path_factory.mktemp("stand_ins")
    subprocess.run([REPOSITORY / "scripts" / "candle_cuda" / "stand_in", directory], check=True)
    source, program = directory / "program.c", directory / "program"
    source.write_text(PROGRAM)
    libraries = ["-lcuda", "-lcublas", "-lcublasLt", "-lcurand", "-lnvrtc"]
    subprocess.run(["cc", source, "-o", program, f"-L{directory}", *libraries], check=True)
    return program


def compile_library(source: Path, library: Path) -> None:
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)


def run(program: Path, libraries: Path, machine: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries), "FAKE_DRIVER": machine}
    return subprocess.run([program], env=environment, capture_output=True, text=True, check=True)


def test_without_libraries_every_function_answers_with_an_error(program: Path, tmp_path: Path) -> None:
    # Files that are no libraries hide those that this machine may have.
    for name in ("libcuda.so.1", "libcublas.so.13", "libcurand.so.10"):
        (tmp_path / name).write_text("no library")
    ran = run(program, tmp_path)
    multiplied = f"{NOT_INITIALIZED} 203 0"
    assert ran.stdout.splitlines() == [
        f"{STUB_LIBRARY} {STUB_LIBRARY}",
        str(NOT_INITIALIZED),
        "libcublas.so.13 is missing",
        multiplied,
        multiplied,
    ]
    # The driver's absence is for the program to word.
    [cublas, curand] = ran.stderr.splitlines()
    assert "libcublas.so.13" in cublas
    assert "libcurand.so.10" in curand


def test_libraries_that_are_there_are_called_with_all_arguments(program: Path, tmp_path: Path) -> None:
    compile_library(REPOSITORY / "kernels" / "proof" / "tests" / "driver" / "libcuda.c", tmp_path / "libcuda.so.1")
    for name, text in (("libcublas.so.13", CUBLAS), ("libcurand.so.10", CURAND)):
        source = tmp_path / f"{name}.c"
        source.write_text(text)
        compile_library(source, tmp_path / name)
    ran = run(program, tmp_path, machine="no card")
    assert ran.stdout.splitlines() == [
        # This driver has no profiler.
        f"{NO_DEVICE} {NOT_SUPPORTED}",
        "0",
        "not initialised",
        "2154321 40 6.625",
        "2154321 40 6.625",
    ]
    assert ran.stderr == ""
