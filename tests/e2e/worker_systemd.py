#!/usr/bin/env python3
"""The shipped units under a real systemd: restart, crash and daemon-reload leave a run and its device filter alone."""
# needs: root net cgroup2 alone
# timeout: 150
# rows: B185 B186 B191 S40 S66
import ctypes
import os
import struct
import subprocess
import time

import worker_lab
from worker_lab import BIN, TOP, check, equal

ROOT = '/sys/fs/cgroup/e2e-systemd'
UNITS = '/run/systemd/system'
worker_lab.enter()

# In the namespaces of the new systemd: /run and the cgroup tree are its own; what only a whole machine needs at boot
# (udev, tmpfiles and so on) is masked.
BOOT = r'''
mount -t tmpfs -o mode=755 tmpfs /run && mkdir -p %(units)s /run/lock || exit 1
umount /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup || exit 1
for unit in /lib/systemd/system/*.target.wants/*; do ln -sf /dev/null %(units)s/"$(basename "$unit")"; done
cp "$1"/*.service %(units)s/ || exit 1
until [ -e "$1/go" ]; do sleep 0.1; done
exec env -i container=cworker PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=basic.target
''' % {'units': UNITS}


class Systemd:
    """systemd as process 1 of namespaces of its own, in a cgroup of its own."""

    def __init__(self, units, log):
        os.mkdir(ROOT)
        self.log = log
        with open(log, 'ab') as f:
            self.process = subprocess.Popen(
                ['sh', '-c', 'echo $$ >%s/cgroup.procs && exec "$@"' % ROOT, 'sh', 'unshare', '--cgroup', '--pid',
                 '--mount', '--propagation', 'private', '--mount-proc', '--fork', '--kill-child', 'sh', '-c', BOOT, 'sh',
                 units], stdin=subprocess.DEVNULL, stdout=f, stderr=f)
        while self.inside() is None:
            check(self.process.poll() is None, self.text())
            time.sleep(0.05)
        # systemd cannot hand controllers down from a group that holds another process: its parent goes elsewhere
        with open('/sys/fs/cgroup/cgroup.procs', 'w') as f:
            f.write(str(self.process.pid))
        with open(units + '/go', 'w'):
            pass

    def __enter__(self):
        deadline = time.monotonic() + 60
        while self.ctl('is-system-running', may_fail=True) not in ('running', 'degraded'):
            check(self.process.poll() is None and time.monotonic() < deadline, 'systemd did not start:', self.text())
            time.sleep(0.2)
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            print(self.text(), self.tree(), sep='\n')
        with open(ROOT + '/cgroup.kill', 'w') as f:
            f.write('1')
        self.process.wait(30)
        for directory, _, _ in os.walk(ROOT, topdown=False):
            for _ in range(100):
                try:
                    os.rmdir(directory)
                    break
                except OSError:  # its processes are still going
                    time.sleep(0.05)

    def text(self):
        with open(self.log, errors='replace') as f:
            return f.read()[-4000:]

    def tree(self):
        """Which controllers each group has and hands down."""
        lines = []
        for directory, _, _ in os.walk(ROOT):
            texts = []
            for name in ('cgroup.controllers', 'cgroup.subtree_control'):
                with open(os.path.join(directory, name)) as f:
                    texts.append(f.read().strip())
            lines.append('%s: %s -> %s' % (directory, *texts))
        return '\n'.join(lines)

    def inside(self):
        with open('/proc/%d/task/%d/children' % (self.process.pid, self.process.pid)) as f:
            children = f.read().split()
        return children[0] if children else None

    def ctl(self, *words, may_fail=False):
        first = self.inside()
        if first is None:
            return ''
        result = subprocess.run(['nsenter', '-t', first, '--mount', '--pid', '--cgroup', 'systemctl', *words],
                                capture_output=True, text=True, timeout=100)
        check(may_fail or result.returncode == 0, 'systemctl', words, result.stdout, result.stderr, self.text())
        return result.stdout.strip()

    def show(self, unit, what):
        return self.ctl('show', '--value', '-p', what, unit)


def write_units(directory, command, log):
    os.mkdir(directory)
    for name in ('cworkerd.service', 'cworker-runs.service'):
        with open(os.path.join(TOP, 'configs', name)) as f:
            text = f.read()
        # the shipped unit but for the command line's flags; StateDirectory would lie on the machine's overlay root
        text = text.replace('@PREFIX@/bin/cworkerd --config /etc/cworker/cworkerd.conf', ' '.join(command))
        with open(os.path.join(directory, name), 'w') as f:
            text = text.replace('StateDirectory=cworker\nStateDirectoryMode=0700\n', '')
            f.write(text.replace('[Service]\n', '[Service]\nStandardOutput=append:%s\nStandardError=inherit\n' % log))


def device_programs(uuid):
    """Ids of the device filters of the run's cgroup (bpf(2), BPF_PROG_QUERY)."""
    found = [d for d, _, _ in os.walk(ROOT + '/system.slice/cworker-runs.service') if os.path.basename(d).endswith(uuid)]
    equal(len(found), 1)
    fd = os.open(found[0], os.O_RDONLY)
    ids = (ctypes.c_uint32 * 16)()
    attr = ctypes.create_string_buffer(struct.pack('=IIIIQI', fd, 6, 0, 0, ctypes.addressof(ids), 16), 64)
    check(ctypes.CDLL(None, use_errno=True).syscall(321, 16, attr, 64) == 0, 'BPF_PROG_QUERY', ctypes.get_errno())
    os.close(fd)
    return list(ids)[:struct.unpack_from('=I', attr, 24)[0]]


with worker_lab.Lab() as lab:
    units = os.path.join(lab.directory, 'units')
    command = [w for w in lab.command('w1', []) if w != '--verbose']
    at = command.index('--runtime-dir')
    command[at + 1] = '/run/cworker'  # the unit's RuntimeDirectory
    log = os.path.join(lab.directory, 'systemd.log')
    write_units(units, command, log)
    with Systemd(units, log) as systemd:
        systemd.ctl('start', 'cworkerd')
        equal(systemd.show('cworker-runs', 'ActiveState'), 'active')
        uuid = lab.run('while [ ! -e go ]; do sleep 0.2; done; echo ended', memory='64m')
        lab.wait(uuid, 'running')
        before = device_programs(uuid)
        check(before, 'no device filter')

        systemd.ctl('daemon-reload')
        equal(device_programs(uuid), before)

        first = systemd.show('cworkerd', 'MainPID')
        systemd.ctl('restart', 'cworkerd')
        second = systemd.show('cworkerd', 'MainPID')
        check(first != second, 'not restarted')
        lab.client.worker_crashed(worker='w1')  # the service may have handed a message to the first one
        lab.wait(uuid, 'running')
        equal(device_programs(uuid), before)

        systemd.ctl('kill', '--signal=KILL', '--kill-whom=main', 'cworkerd')
        lab.until(lambda: systemd.show('cworkerd', 'MainPID') not in ('0', second), 'systemd to start it again')
        lab.client.worker_crashed(worker='w1')
        equal(device_programs(uuid), before)
        with open(os.path.join(lab.work_dir, 'runs', uuid, 'go'), 'w'):
            pass
        lab.wait(uuid, 'ready')
        equal(lab.cat(uuid), 'ended\n')

        # Stopping the runs' unit ends them; the worker goes with it (Requires=) and its next start tells the server.
        lost = lab.run('sleep 1000', memory='64m')
        lab.wait(lost, 'running')
        systemd.ctl('stop', 'cworker-runs')
        equal(systemd.show('cworkerd', 'ActiveState'), 'inactive')
        lab.client.worker_crashed(worker='w1')
        systemd.ctl('start', 'cworkerd')
        equal(lab.wait(lost, ('failed', 'ready'))['state'], 'failed')
        systemd.ctl('stop', 'cworkerd', 'cworker-runs')
        equal(systemd.show('cworkerd', 'Result'), 'success')
