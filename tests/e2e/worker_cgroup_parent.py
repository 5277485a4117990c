#!/usr/bin/env python3
"""Runs in a group beside the worker's (--cgroup-parent): the worker stays where it was put, and can be started there again."""
# needs: root net cgroup2 alone
# rows: B185 B186 B191 S41
import os
import subprocess

import worker_lab
from worker_lab import check, equal

ROOT = '/sys/fs/cgroup'
worker_lab.enter()


def make(path):
    os.makedirs(ROOT + path, exist_ok=True)


def group_of(pid):
    with open('/proc/%d/cgroup' % pid) as f:
        return f.read().strip().split('::')[1]


make('/e2e-parent/holder')
make('/e2e-service')
holder = subprocess.Popen(['sleep', '1000'])
with open(ROOT + '/e2e-parent/holder/cgroup.procs', 'w') as f:
    f.write(str(holder.pid))
with open(ROOT + '/e2e-service/cgroup.procs', 'w') as f:
    f.write(str(os.getpid()))
try:
    with worker_lab.Lab() as lab:
        w = lab.worker('--cgroup-parent', '/e2e-parent')
        uuid = lab.run('cat /proc/self/cgroup; sleep 8; echo ended', memory='64m')
        lab.wait(uuid, 'running')
        equal(group_of(w.process.pid), '/e2e-service')
        runs = os.listdir(ROOT + '/e2e-parent/cworker/runs')
        check(any(uuid in r for r in runs), runs)
        w.kill9()
        w.start()  # in the same, undivided group: what a service manager does
        equal(group_of(w.process.pid), '/e2e-service')
        lab.wait(uuid, 'ready')
        check(lab.cat(uuid).endswith('ended\n'), lab.cat(uuid))
        check(w.stop() == 0, 'stop')
        # a parent with processes of its own is not divided, and nobody is moved
        with open(ROOT + '/e2e-parent/cgroup.procs') as f:
            equal(f.read(), '')
        result = subprocess.run(lab.command('w2', ['--cgroup-parent', '/e2e-service']), capture_output=True, text=True, timeout=60)
        check(result.returncode == 1 and 'holds other processes' in result.stderr, result.stderr)
finally:
    holder.kill()
    holder.wait()
