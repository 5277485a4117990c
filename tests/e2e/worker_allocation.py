#!/usr/bin/env python3
"""A worker started inside a scheduler's allocation (a job's group of Slurm, a slice): its runs stay there, what it offers and
they get is what the allocation has, and its end is theirs."""
# needs: root net cgroup2 alone
# timeout: 180
# rows: S40 S41 S49
import ctypes
import os
import platform
import struct

import worker_lab
from worker_lab import check, equal

ROOT = '/sys/fs/cgroup'
MEMORY = 400 << 20


def write(path, text):
    with open(ROOT + path, 'w') as f:
        f.write(text)


def read(path):
    with open(ROOT + path) as f:
        return f.read()


def make_allocation(job):
    """As a scheduler does: limits at the job, the program in a group below it."""
    parts = (job + '/step_0').strip('/').split('/')
    for n in range(1, len(parts) + 1):
        path = '/' + '/'.join(parts[:n])
        os.makedirs(ROOT + path, exist_ok=True)
        if n < len(parts):
            write(path + '/cgroup.subtree_control', '+cpuset +cpu +memory +pids +io')
    write(job + '/cpuset.cpus', '0')
    write(job + '/memory.max', str(MEMORY))
    write(job + '/memory.swap.max', '0')
    write(job + '/pids.max', '300')


def bpf(command, attributes):
    libc = ctypes.CDLL(None, use_errno=True)
    size = ctypes.create_string_buffer(attributes.ljust(120, b'\0'))
    fd = libc.syscall({'x86_64': 321, 'aarch64': 280}[platform.machine()], command, size, 120)
    if fd < 0:
        raise OSError(ctypes.get_errno(), 'bpf')
    return fd


def constrain_devices(job):
    """ConstrainDevices, as Slurm has it: a filter at the job's group. This one refuses /dev/full (1:7) alone."""
    def insn(code, dst=0, src=0, offset=0, value=0):
        return struct.pack('<BBhi', code, dst | src << 4, offset, value)
    program = ctypes.create_string_buffer(
        insn(0x61, 2, 1, 4) + insn(0x55, 2, offset=4, value=1) +  # r2 = major; if (r2 != 1) goto allow
        insn(0x61, 2, 1, 8) + insn(0x55, 2, offset=2, value=7) +  # r2 = minor; if (r2 != 7) goto allow
        insn(0xb7, 0, value=0) + insn(0x95) + insn(0xb7, 0, value=1) + insn(0x95))
    licence = ctypes.create_string_buffer(b'GPL')
    prog = bpf(5, struct.pack('<IIQQ', 15, 8, ctypes.addressof(program), ctypes.addressof(licence)))
    group = os.open(ROOT + job, os.O_RDONLY | os.O_DIRECTORY)
    bpf(8, struct.pack('<IIII', group, prog, 6, 2))  # BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI
    os.close(group)
    os.close(prog)


DEVICES = 'for d in null full kmsg; do { : </dev/$d; } 2>/dev/null && echo $d; done; exit 0'


def remove(job):
    for directory, _, _ in os.walk(ROOT + job, topdown=False):
        os.rmdir(directory)


class Inside(worker_lab.Lab):
    job = '/e2e-slice/job_7'

    def command(self, name, flags):
        enter = 'echo $$ >%s%s/step_0/cgroup.procs && exec "$@"' % (ROOT, self.job)
        return ['/bin/sh', '-c', enter, 'sh'] + super().command(name, flags)


def groups_of(uuid):
    return [d[len(ROOT):] for d, _, _ in os.walk(ROOT) if d.endswith('/' + uuid)]


def main():
    worker_lab.enter()
    make_allocation(Inside.job)
    constrain_devices(Inside.job)
    with Inside() as lab:
        w = lab.worker()
        lab.until(lambda: lab.client.workers(), 'a check-in')
        told = lab.client.workers()[0]['checkin']
        equal(told['cpus'], 1)
        check(told['memory_bytes'] <= MEMORY, told)
        # a run's own limit holds below the job's
        greedy = lab.run('memhog 600; echo memhog ended with $?', memory='100m')
        lab.wait(greedy, 'ready', timeout=120)
        equal(lab.cat(greedy), 'memhog ended with 137\n')
        # of the devices that runs have by default, those that the job has
        devices = lab.run(DEVICES, memory='64m')
        lab.wait(devices, 'ready', timeout=90)
        equal(lab.cat(devices), 'null\n')
        run = lab.run('nproc; cat /proc/self/cgroup; sleep 1000', memory='300m')
        lab.wait(run, 'running', timeout=90)
        found = groups_of(run)
        check(len(found) == 1 and found[0].startswith('/e2e-slice/job_7/'), found)
        equal(read('/e2e-slice/job_7/cpuset.cpus.effective').strip(), '0')
        # the scheduler ends the job: worker, shims and programs are gone at once
        write('/e2e-slice/job_7/cgroup.kill', '1')
        equal(w.process.wait(60), -9)
        lab.until(lambda: 'populated 0' in read('/e2e-slice/job_7/cgroup.events'), 'the end of the allocation')
        lab.client.worker_crashed(worker=w.name)
        # the next job finds what it left
        remove(lab.job)
        lab.job = '/e2e-slice/job_8'
        make_allocation(lab.job)
        w.start()
        lab.wait(run, 'failed', timeout=90)
        # in a job without such a filter ours is the only one
        devices = lab.run(DEVICES, memory='64m')
        lab.wait(devices, 'ready', timeout=90)
        equal(lab.cat(devices), 'null\nfull\n')


if __name__ == '__main__':
    main()
