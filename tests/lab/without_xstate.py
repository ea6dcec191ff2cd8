"""Run a command that may not ask for the extended state of the processor.

User-mode Linux 6.1 reads that state of its processes with ptrace, and writes it back. It has room
for 2,696 bytes of it, and where AMX makes it larger the machine's kernel takes no part of it back.
If it may not ask it saves what SSE has. That is enough for programs that use no AVX, which `run`
tells glibc and OpenSSL.
"""

import ctypes
import errno
import os
import struct
import sys

_SET_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2  # linux/prctl.h, linux/seccomp.h
_X86_64, _PTRACE = 0xC000003E, 101
_GET_REGISTERS, _EXTENDED_STATE = 0x4204, 0x202  # PTRACE_GETREGSET, NT_X86_XSTATE
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EIO

_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # linux/bpf_common.h
_NUMBER, _ARCHITECTURE, _REQUEST, _ADDRESS = 0, 4, 16, 32  # offsets in struct seccomp_data
_PROGRAM = (
    (_LOAD, 0, 0, _ARCHITECTURE),
    (_JUMP_IF_EQUAL, 0, 6, _X86_64),
    (_LOAD, 0, 0, _NUMBER),
    (_JUMP_IF_EQUAL, 0, 4, _PTRACE),
    (_LOAD, 0, 0, _REQUEST),
    (_JUMP_IF_EQUAL, 0, 2, _GET_REGISTERS),
    (_LOAD, 0, 0, _ADDRESS),
    (_JUMP_IF_EQUAL, 1, 0, _EXTENDED_STATE),
    (_RETURN, 0, 0, _ALLOW),
    (_RETURN, 0, 0, _REFUSE),
)


def main() -> None:
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in _PROGRAM))
    program = struct.pack("HxxxxxxP", len(_PROGRAM), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((_SET_NO_NEW_PRIVILEGES, 1, 0), (_SET_SECCOMP, _FILTER, program)):
        if libc.prctl(*arguments, 0, 0) != 0:
            sys.exit(f"without_xstate: prctl: {os.strerror(ctypes.get_errno())}")
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
