#!/usr/bin/env python3
"""Two workers of one host share the groups they made: either may end, crash and come back, and the other's runs have limits."""
# needs: root net cgroup2 alone
# timeout: 180
import os
import subprocess

import worker_lab
from worker_lab import check, equal

ROOT = '/sys/fs/cgroup'
LIMIT = 96 << 20
worker_lab.enter()


def group_of(pid):
    with open('/proc/%d/cgroup' % pid) as f:
        return f.read().strip().split('::')[1]


def find(uuid):
    return [d for d, _, _ in os.walk(ROOT) if os.path.basename(d) == uuid]


def move(group):
    with open(ROOT + group + '/cgroup.procs', 'w') as f:
        f.write(str(os.getpid()))


class Two(worker_lab.Lab):
    """Each worker takes bundles of its own tag."""
    begin = None  # the group that workers are started in

    def command(self, name, flags):
        words = super().command(name, ['--tag', name, '--tag-exclusive'] + list(flags))
        enter = 'echo $$ >%s%s/cgroup.procs && exec "$@"' % (ROOT, self.begin)
        return ['/bin/sh', '-c', enter, 'sh'] + words if self.begin else words

    def on(self, name, command):
        return self.run(command, memory=str(LIMIT), queue='tag=' + name)


def proved(lab, name):
    """A bundle on that worker that runs to its end, in a group of its own with the limit asked for."""
    uuid = lab.on(name, 'until [ -e go ]; do sleep 0.1; done; echo on ' + name)
    lab.wait(uuid, 'running')
    found = find(uuid)
    equal(len(found), 1)
    with open(found[0] + '/memory.max') as f:
        equal(int(f.read()), LIMIT)
    equal(lab.client.info(uuid)['worker_id'], name)
    lab.client.write(uuid=uuid, subpath='go', string='')
    lab.wait(uuid, 'ready')
    equal(lab.cat(uuid), 'on %s\n' % name)


def lives(lab, first, second):
    """first, second: the groups the two are started in; None: where we are."""
    lab.begin = first
    a = lab.worker(name='a')
    if second == 'supervisor':
        second = group_of(a.process.pid)
        check(second.endswith('/cworker/supervisor'), second)
    lab.begin = second
    b = lab.worker(name='b')
    equal(group_of(a.process.pid), group_of(b.process.pid))
    check(group_of(a.process.pid).endswith('/cworker/supervisor'), group_of(a.process.pid))
    stays = lab.on('b', 'echo x > n; until [ -e go ]; do sleep 0.1; done; echo stayed')
    lab.wait(stays, 'running')
    # One crashes and comes back: the other's run is none of its business.
    a.kill9()
    lab.begin = first if first is None else second
    a.start()
    check(find(stays), 'the run of the other worker is gone')
    proved(lab, 'a')
    # One ends in good order while the other has a run, and again while it has none: groups are there when they are needed.
    equal(a.stop(), 0)
    lab.client.write(uuid=stays, subpath='go', string='')
    lab.wait(stays, 'ready')
    equal(lab.cat(stays), 'stayed\n')
    a.start()
    lab.until(lambda: lab.client.workers(), 'a check-in')
    equal(a.stop(), 0)
    proved(lab, 'b')
    equal(b.stop(), 0)
    lab.workers.clear()
    left = [d for d, _, _ in os.walk(ROOT) if d.endswith('/cworker/runs') and os.path.dirname(os.path.dirname(d)) in
            (ROOT, ROOT + '/e2e-unit')]
    equal(left, [])


with Two() as lab:
    here = group_of(os.getpid())
    equal(here, '/')  # of the machine: processes may stay there
    lives(lab, None, None)
with Two() as lab:
    # Divided by the first, its group takes no process any more: the second can only be started beside it.
    os.makedirs(ROOT + '/e2e-unit', exist_ok=True)
    lives(lab, '/e2e-unit', 'supervisor')
for top in ('/e2e-unit', '/cworker'):
    for directory, _, _ in os.walk(ROOT + top, topdown=False):
        os.rmdir(directory)
