"""Kill a program at exactly its n-th system call that could change anything, for tests/e2e/net_crash_points.py.

Between two such calls every instant leaves the same behind, so these are all the crash points there are.
"""
import ctypes
import os
import signal
import struct

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long
CONT_SYSCALL, DETACH, SEIZE, INTERRUPT, SYSCALL_INFO = 24, 17, 0x4206, 0x4207, 0x420e
TRACESYSGOOD, TRACECLONE = 1, 8
WALL = 0x40000000
READ = 0
# x86-64: write, pwrite64, sendto, sendmsg, renameat, renameat2, unlinkat, unlink, rename, mkdirat, mkdir, ftruncate,
# openat (with O_CREAT), openat2, setns, unshare
CHANGES = {1, 18, 44, 46, 264, 316, 263, 87, 82, 258, 83, 77, 257, 437, 308, 272}
OPENAT, O_CREAT = 257, 0o100


def ptrace(request, tid, addr=0, data=0):
    if libc.ptrace(request, tid, addr, data) < 0:
        e = ctypes.get_errno()
        raise OSError(e, f"ptrace {request}: {os.strerror(e)}")


def entry(tid):
    """(number, arguments) at the entry of a system call, else None."""
    buf = ctypes.create_string_buffer(88)
    ptrace(SYSCALL_INFO, tid, len(buf), ctypes.addressof(buf))
    if buf.raw[0] != 1:
        return None
    return struct.unpack_from("<7Q", buf.raw, 24)


def changes(call):
    return call[0] in CHANGES and (call[0] != OPENAT or call[3] & O_CREAT)


def run_until(pid, start, n):
    """Seize the (single-threaded) program, call start(), and kill it at its n-th change. False: it came to its next read of
    standard input before that; then it is let go and lives."""
    ptrace(SEIZE, pid, 0, TRACESYSGOOD | TRACECLONE)
    ptrace(INTERRUPT, pid)
    os.waitpid(pid, WALL)
    ptrace(CONT_SYSCALL, pid)
    start()
    seen = reads = 0
    while True:
        tid, status = os.waitpid(-1, WALL)
        if not os.WIFSTOPPED(status):
            if tid == pid:
                raise RuntimeError("the program ended by itself")
            continue  # a thread of it
        sig = os.WSTOPSIG(status)
        call = entry(tid) if sig == signal.SIGTRAP | 0x80 else None
        if call and changes(call):
            seen += 1
            if seen == n:
                os.kill(pid, signal.SIGKILL)
                while True:  # its threads are to be waited for too, or it stays
                    tid, status = os.waitpid(-1, WALL)
                    if tid == pid and not os.WIFSTOPPED(status):
                        return True
        if call and tid == pid and call[0] == READ and call[1] == 0:
            reads += 1
            if seen:  # what it answered was its last change
                ptrace(DETACH, tid)
                return False
        try:
            ptrace(CONT_SYSCALL, tid)
        except OSError:
            pass  # it was just being made or is dying
