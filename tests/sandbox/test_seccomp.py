"""The system call filter, run here as the kernel would run it: every call by number, on both architectures."""

from __future__ import annotations

import errno
import platform
import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from crrl.sandbox import seccomp

ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, KILL = 0x7FFF0000, 0x80000000
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


def numbers(text: str) -> set[int]:
    return {int(word) for word in text.split()}


# What no box may call, by hand: that the filter's own table is whole is what is tested.
REFUSED = {
    "x86_64": numbers(
        "101 103 134 135 136 139 153 154 155 156 159 161 163 164 165 166 167 168 169 172 173 174 175 176 177 "
        "178 179 180 206 212 227 237 238 246 248 249 250 256 272 278 279 298 300 301 303 304 305 308 310 311 "
        "312 313 319 320 321 323 425 426 427 428 429 430 431 432 433 435 438 440 442 443 447 448 450 453 457 "
        "458 459 460 461 "
    ),
    "aarch64": numbers(
        "0 18 39 40 41 42 51 58 60 75 89 92 97 104 105 106 112 116 117 142 170 171 217 218 219 224 225 235 "
        "237 238 239 241 262 263 264 265 266 268 270 271 272 273 279 280 282 294 425 426 427 428 429 430 431 "
        "432 433 435 438 440 442 443 447 448 450 453 457 458 459 460 461 "
    ),
}
UNCOUNTED = {"x86_64": {64, 68}, "aarch64": {190, 186}}
NUMBERS = {  # clone, ioctl, socket, fcntl, prctl
    "x86_64": (56, 16, 41, 72, 157),
    "aarch64": (220, 29, 198, 25, 167),
}
Filter = Callable[..., int]


def run(program: bytes, number: int, arguments: tuple[int, ...], arch: int) -> int:
    """The verdict of a classic BPF program (the operations that seccomp allows and we use)."""
    data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, arch, 0, *(*arguments, *(0,) * (6 - len(arguments))))
    steps = list(struct.iter_unpack("=HBBI", program))
    at = accumulator = 0
    while True:
        code, if_true, if_false, value = steps[at]
        at += 1
        if code == 0x06:
            return int(value)
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
        else:
            holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[code]
            at += if_true if holds else if_false


@pytest.fixture(params=[(machine, bounded) for machine in ARCH for bounded in (True, False)], ids=str)
def of(request, monkeypatch) -> tuple[str, bool, Filter]:  # type: ignore[no-untyped-def]
    machine, bounded = request.param
    monkeypatch.setattr(platform, "machine", lambda: machine)
    program = seccomp.build(uncounted=bounded)
    return machine, bounded, lambda number, *arguments: run(program, number, arguments, ARCH[machine])


def test_every_number_is_allowed_or_refused_as_written_down(of: tuple[str, bool, Filter]) -> None:
    machine, bounded, verdict = of
    low, high = {"x86_64": (335, 423), "aarch64": (295, 423)}[machine]
    refused = REFUSED[machine] | (set() if bounded else UNCOUNTED[machine])
    refused |= {*range(low, high + 1), *range(463, 2000)}  # no call has them yet: as on a kernel without it
    socket = NUMBERS[machine][2]
    allowed = {number for number in range(2000) if verdict(number, 1 if number == socket else 0) == ALLOW}
    assert allowed == {*range(2000)} - refused
    for number in (500, 1 << 20, (1 << 30) - 1, low, high):
        assert verdict(number) == 0x00050000 | errno.ENOSYS
    if machine == "x86_64":  # the same calls under their x32 numbers
        assert {verdict(0x40000000 | number) for number in (0, 1, 101, 165, 428)} == {KILL}


def test_another_architecture_s_calls_end_the_process(of: tuple[str, bool, Filter]) -> None:
    machine, bounded, _ = of
    program = seccomp.build(uncounted=bounded)
    others = {0x40000003, 0x40000028, *ARCH.values()} - {ARCH[machine]}  # i386, arm
    assert {run(program, number, (), arch) for arch in others for number in (0, 1, 11, 165)} == {KILL}


def test_arguments_that_are_refused(of: tuple[str, bool, Filter]) -> None:
    machine, bounded, verdict = of
    clone, ioctl, socket, fcntl, prctl = NUMBERS[machine]
    for bit in range(32):
        namespace = 1 << bit in (0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000, 0x20000)
        assert (verdict(clone, 1 << bit) == ALLOW) != namespace, hex(1 << bit)
    assert [verdict(ioctl, 0, request) == ALLOW for request in (0x5401, 0x5412, 0x541C)] == [True, False, False]
    assert {family for family in range(64) if verdict(socket, family) == ALLOW} == {1, 2, 10, 16}
    assert verdict(socket, 40) == 0x00050000 | errno.EAFNOSUPPORT  # vsock reaches the host of a virtual machine
    assert verdict(fcntl, 0, 1024) == ALLOW and (verdict(fcntl, 0, 1031) == ALLOW) == bounded  # F_SETPIPE_SZ
    assert verdict(prctl, 4, 0) == ALLOW and verdict(prctl, 41, 1) == ALLOW
    assert [verdict(prctl, 41, *rest) == ALLOW for rest in ((0, 0), (1, 2))] == [bounded, bounded]


@pytest.mark.parametrize("machine", ARCH)
def test_the_numbers_are_those_of_the_kernel_s_headers(machine: str) -> None:
    header = HEADERS[machine]
    if not header.is_file():
        pytest.skip(f"no {header}: apt-get install linux-libc-dev")
    known = dict(re.findall(r"#define __NR(?:3264)?_(\w+) (\d+)", header.read_text()))
    column = list(ARCH).index(machine)
    tables = {**seccomp.DENIED, **seccomp.UNKNOWN, **seccomp.UNCOUNTED}
    wrong = {
        name: (numbers[column], known[name])
        for name, numbers in tables.items()
        if name in known and str(numbers[column]) != known[name]
    }
    assert wrong == {} and len(tables.keys() & known.keys()) > 60
