"""What the CPU can: whether it multiplies matrices of bf16 numbers."""

import platform
from functools import cache
from pathlib import Path

from spillover.lazy import lazy

umath = lazy("numpy._core._multiarray_umath")

X86 = ("x86_64", "AMD64")
FLAGS = Path("/proc/cpuinfo")
NEEDED = {"avx512bw", "avx512vl", "avx512dq"}


@cache
def has_bf16() -> bool:
    """Whether bf16 is worth it on this CPU.

    oneDNN, which multiplies for torch, has kernels for it from AVX-512 on. An x86 without it emulates: 0.6 Gflop/s were
    measured on one that does 28 in fp32. Others (ARM) are taken to have it.
    """
    if platform.machine() not in X86:
        return True
    if FLAGS.is_file():  # read here, because a plan loads nothing heavy, and numpy is
        return set(FLAGS.read_text(encoding="utf-8", errors="replace").split()) >= NEEDED
    return bool(umath.__cpu_features__["AVX512_SKX"])


def computed_in(precision: str, *, on_card: bool) -> str:
    """What a model of a precision really computes in: on a CPU that would emulate bf16, fp32.

    Weights are the same numbers then, and what is computed of them is rounded less. So it is no other experiment, and
    no key knows of it.
    """
    return "fp32" if precision == "bf16" and not on_card and not has_bf16() else precision
