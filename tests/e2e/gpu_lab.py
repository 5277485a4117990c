"""A host that pretends to have two NVIDIA GPUs, for tests/e2e/*gpus.py. Not a test by itself.

All of it lies in a mount namespace of the caller's own: pretend() enters it. The GPUs are GPU-fake-0 and GPU-fake-1.
"""
import ctypes
import os
import stat
import subprocess

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
VERSION = '999.1.2'
# devices that every host has, that open without any right, and that no container has by default
NODES = {'nvidia0': (1, 11), 'nvidia1': (10, 237), 'nvidiactl': (1, 11)}
BASIC = ('null', 'zero', 'full', 'random', 'urandom', 'tty', 'kmsg', 'fuse')


def mount(source, target, kind, flags=0, data=''):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode()):
        raise OSError(ctypes.get_errno(), 'mount %s' % target)


def own_mounts():
    """What follows is seen by us and our children alone."""
    if ctypes.CDLL(None, use_errno=True).unshare(0x20000):
        raise OSError(ctypes.get_errno(), 'unshare')
    mount('none', '/', 'none', 0x4000 | 0x40000)  # MS_REC | MS_PRIVATE


def compile_c(text, out, *flags):
    subprocess.run(['cc', '-O1', '-x', 'c', '-', '-o', out, *flags], input=text, text=True, check=True)


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'w') as f:
        f.write(text)


def pretend():
    """Two GPUs by the driver's files and nodes, its library, its services' sockets."""
    subprocess.run(['modprobe', '-qa', 'loop', 'fuse'])
    own_mounts()
    for place in ('/proc/driver', '/usr/local', '/run'):
        mount('tmpfs', place, 'tmpfs')
    # an uncovered one, without which the kernel gives user namespaces no proc of their own
    os.mkdir('/usr/local/proc')
    mount('proc', '/usr/local/proc', 'proc')
    write('/proc/driver/nvidia/version', 'NVRM version: NVIDIA UNIX x86_64 Kernel Module  %s  Sat\n' % VERSION)
    for n in (0, 1):
        write('/proc/driver/nvidia/gpus/0000:0%d:00.0/information' % (n + 1),
              'Model: \t\t Fake\nGPU UUID: \t GPU-fake-%d\nDevice Minor: \t %d\n' % (n, n))
    basic = {n: os.stat('/dev/' + n).st_rdev for n in BASIC}
    mount('tmpfs', '/dev', 'tmpfs')
    for name, number in list(basic.items()) + [(n, os.makedev(*d)) for n, d in NODES.items()]:
        os.mknod('/dev/' + name, stat.S_IFCHR | 0o666, number)
        os.chmod('/dev/' + name, 0o666)
    compile_c('int cuInit(unsigned f) { return 42 + f; }', '/usr/local/nvidia.so', '-shared', '-fPIC',
              '-Wl,-soname,libcuda.so.1')
    os.makedirs('/usr/local/nvidia/lib64')
    os.rename('/usr/local/nvidia.so', '/usr/local/nvidia/lib64/libcuda.so.' + VERSION)
    write('/run/nvidia-persistenced/socket', '')


def fake_nvml(directory):
    """A directory for LD_LIBRARY_PATH, and for FAKE_NVML (tests/fixtures/fake_nvml.c)."""
    out = os.path.join(directory, 'nvml')
    os.mkdir(out)
    subprocess.run(['cc', '-shared', '-fPIC', '-o', os.path.join(out, 'libnvidia-ml.so.1'),
                    os.path.join(TOP, 'tests/fixtures/fake_nvml.c')], check=True)
    return out
