"""A worker's lab on a file system of its own, that a measurement of the worker is not one of the host's root file system."""
import contextlib
import os
import subprocess
import tempfile

import worker_lab
from disk import Disk


@contextlib.contextmanager
def bench_lab(**flags):
    if os.path.isdir('/scratch'):  # in the virtual machine
        with worker_lab.Lab(**flags) as lab:
            yield lab
        return
    with tempfile.TemporaryDirectory(dir='/var/tmp', prefix='bench.') as scratch:
        disk, run = Disk(scratch, 4096), os.path.join(scratch, 'run')
        os.mkdir(run)
        subprocess.run(['mount', '-t', 'tmpfs', 'bench', run], check=True)
        try:
            with worker_lab.Lab(where=disk.where, runtime_dir=os.path.join(run, 'rt'), **flags) as lab:
                yield lab
        finally:
            subprocess.run(['umount', run], check=True)
            disk.close()
