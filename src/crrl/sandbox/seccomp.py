"""The system calls that a box may make, as a classic-BPF program for `bwrap --seccomp` (x86_64, aarch64).

The namespaces do the confining; this takes away the kernel's larger attack surface (mounts, new namespaces, io_uring,
bpf, keyrings...) and what no limit counts. A call that is not known here is answered as by a kernel that does not have
it: everything above `KNOWN`, which later kernels may bring, and the gap in the numbers below; of the known ones each
was looked at, and those that no box needs are `DENIED`. `clone3` answers ENOSYS so that the C library falls back to
`clone`, whose flags can be looked at; `memfd_create` makes memory that shows in no process's resident size.
Cost: the kernel remembers which calls are allowed whatever their arguments (5.11), and asks the filter for the rest.
"""

from __future__ import annotations

import errno
import platform
import struct

from crrl.errors import CrrlError

LOAD, JUMP_EQ, JUMP_GE, JUMP_SET, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
NR_OFFSET, ARCH_OFFSET, ARGS_OFFSET = 0, 4, 16
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# CLONE_NEW{USER,NS,PID,NET,IPC,UTS,CGROUP}
NEW_NAMESPACES = 0x10000000 | 0x00020000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000 | 0x02000000
TIOCSTI, TIOCLINUX = 0x5412, 0x541C
F_SETPIPE_SZ = 1031
PR_SET_THP_DISABLE = 41
KNOWN = 462  # mseal, of Linux 6.10
GAP = {"x86_64": (335, 423), "aarch64": (295, 423)}  # numbers that no call has
SOCKET_FAMILIES = (1, 2, 10, 16)  # unix, inet, inet6, netlink: nothing else (vsock, packet, alg...)

# name: (x86_64, aarch64); None where the architecture has no such call
DENIED: dict[str, tuple[int | None, int | None]] = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "setns": (308, 268),
    "unshare": (272, 97),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "syslog": (103, 116),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "personality": (135, 92),
    "move_pages": (279, 239),
    "mbind": (237, 235),
    "vhangup": (153, 58),
    "migrate_pages": (256, 238),
    "set_mempolicy": (238, 237),
    "set_mempolicy_home_node": (450, 450),
    "quotactl_fd": (443, 443),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    "lookup_dcookie": (212, 18),
    "nfsservctl": (180, 42),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "statmount": (457, 457),
    "listmount": (458, 458),
    "lsm_get_self_attr": (459, 459),
    "lsm_set_self_attr": (460, 460),
    "lsm_list_modules": (461, 461),
    "map_shadow_stack": (453, 453),
    "vmsplice": (278, 75),  # pages that nobody is charged for
    "modify_ldt": (154, None),
    "iopl": (172, None),
    "ioperm": (173, None),
    "uselib": (134, None),
    "ustat": (136, None),
    "sysfs": (139, None),
    "_sysctl": (156, None),
    "create_module": (174, None),
    "get_kernel_syms": (177, None),
    "query_module": (178, None),
}
UNKNOWN: dict[str, tuple[int | None, int | None]] = {  # answered as an old kernel would: programs have a fallback
    "clone3": (435, 435),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "io_setup": (206, 0),
}
UNCOUNTED: dict[str, tuple[int | None, int | None]] = {  # kernel memory that only a cgroup counts
    "semget": (64, 190),
    "msgget": (68, 186),
}
CLONE, IOCTL, SOCKET, FCNTL, PRCTL = (56, 220), (16, 29), (41, 198), (72, 25), (157, 167)


def build(*, uncounted: bool = False) -> bytes:
    """The filter for this machine, as `struct sock_filter[]`. Raises CrrlError on other architectures.

    Args:
        uncounted: a cgroup bounds memory: System V semaphores and messages, larger pipes, and a change of what
            `memory_watch.confine` has set are allowed.
    """
    machine = platform.machine()
    if machine not in AUDIT_ARCH:
        raise CrrlError(f"Sandboxes are not supported on {machine}.", "Use an x86_64 or aarch64 machine.")
    column = 0 if machine == "x86_64" else 1
    code: list[bytes] = []

    def step(operation: int, if_true: int, if_false: int, value: int) -> None:
        code.append(struct.pack("=HBBI", operation, if_true, if_false, value))

    def answer(verdict: int) -> None:
        step(RETURN, 0, 0, verdict)

    def argument(index: int) -> None:
        step(LOAD, 0, 0, ARGS_OFFSET + 8 * index)

    step(LOAD, 0, 0, ARCH_OFFSET)
    step(JUMP_EQ, 1, 0, AUDIT_ARCH[machine])
    answer(KILL)
    step(LOAD, 0, 0, NR_OFFSET)
    if machine == "x86_64":  # the x32 numbers would go round the list
        step(JUMP_GE, 0, 1, 0x40000000)
        answer(KILL)
    low, high = GAP[machine]
    step(JUMP_GE, 2, 0, KNOWN + 1)
    step(JUMP_GE, 0, 2, low)
    step(JUMP_GE, 1, 0, high + 1)
    answer(ERRNO | errno.ENOSYS)
    for table, error in (
        (DENIED, errno.EPERM),
        (UNKNOWN, errno.ENOSYS),
        ({} if uncounted else UNCOUNTED, errno.ENOSYS),
    ):
        for numbers in table.values():
            number = numbers[column]
            if number is not None:
                step(JUMP_EQ, 0, 1, number)
                answer(ERRNO | error)
    step(JUMP_EQ, 0, 4, CLONE[column])
    argument(0)
    step(JUMP_SET, 0, 1, NEW_NAMESPACES)
    answer(ERRNO | errno.EPERM)
    answer(ALLOW)
    step(JUMP_EQ, 0, 5, IOCTL[column])
    argument(1)
    step(JUMP_EQ, 1, 0, TIOCSTI)
    step(JUMP_EQ, 0, 1, TIOCLINUX)
    answer(ERRNO | errno.EPERM)
    answer(ALLOW)
    if not uncounted:
        step(JUMP_EQ, 0, 4, FCNTL[column])
        argument(1)
        step(JUMP_EQ, 0, 1, F_SETPIPE_SZ)
        answer(ERRNO | errno.EPERM)
        answer(ALLOW)
        step(JUMP_EQ, 0, 8, PRCTL[column])
        argument(0)
        step(JUMP_EQ, 0, 5, PR_SET_THP_DISABLE)  # huge pages may be given up, not taken back
        argument(1)
        step(JUMP_EQ, 2, 0, 0)
        argument(2)  # Linux 6.18: which of them to give up; 0: all
        step(JUMP_EQ, 1, 0, 0)
        answer(ERRNO | errno.EPERM)
        answer(ALLOW)
    step(JUMP_EQ, 0, len(SOCKET_FAMILIES) + 2, SOCKET[column])
    argument(0)
    for place, family in enumerate(SOCKET_FAMILIES):
        step(JUMP_EQ, len(SOCKET_FAMILIES) - place, 0, family)
    answer(ERRNO | errno.EAFNOSUPPORT)
    answer(ALLOW)
    return b"".join(code)
