#!/usr/bin/env python3
"""Registry to ready, synced root: cwrun pull against skopeo + umoci, podman, containerd and dockerd; cold each time, on a fresh
journaled loop file system.

For each: wall seconds (to the end of a sync of that file system), CPU seconds of all its processes, the largest sum of
resident memory, and what reached the device.
"""
import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(TOP, 'tests/fixtures')]
import pull_images  # noqa: E402
import registry  # noqa: E402

CWRUN = os.path.join(TOP, 'build/bin/cwrun')
TICK = os.sysconf('SC_CLK_TCK')
PAGE = os.sysconf('SC_PAGE_SIZE')


class Disk:
    """A fresh ext4 in a file: a root file system without a journal measures something else."""

    def __init__(self, scratch, mib):
        self.path, self.where = os.path.join(scratch, 'fs.img'), os.path.join(scratch, 'fs')
        with open(self.path, 'wb') as f:
            f.truncate(mib << 20)
        subprocess.run(['mke2fs', '-q', '-t', 'ext4', '-E', 'lazy_itable_init=0,lazy_journal_init=0', self.path], check=True)
        os.makedirs(self.where, exist_ok=True)
        self.loop = subprocess.check_output(['losetup', '--find', '--show', self.path], text=True).strip()
        subprocess.run(['mount', self.loop, self.where], check=True)

    def written(self):
        with open('/sys/block/%s/stat' % os.path.basename(self.loop)) as f:
            return int(f.read().split()[6]) * 512

    def sync(self):
        subprocess.run(['sync', '-f', self.where], check=True)

    def close(self):
        subprocess.run(['umount', '-R', self.where], check=True)
        subprocess.run(['losetup', '-d', self.loop], check=True)
        os.unlink(self.path)


def stat_of(pid):
    """(parent, own CPU seconds, CPU seconds with those it has waited for, resident bytes)"""
    with open('/proc/%d/stat' % pid) as f:
        fields = f.read().rsplit(')', 1)[1].split()
    own = sum(map(int, fields[11:13]))
    return int(fields[1]), own / TICK, (own + sum(map(int, fields[13:15]))) / TICK, int(fields[21]) * PAGE


class Watch(threading.Thread):
    """The largest sum of resident memory of some processes and all below them."""

    def __init__(self, roots):
        super().__init__(daemon=True)
        self.roots, self.peak, self.over = set(roots), 0, threading.Event()

    def run(self):
        while not self.over.wait(0.03):
            parents, resident = {}, {}
            for name in os.listdir('/proc'):
                with contextlib.suppress(OSError, ValueError):
                    parents[int(name)], _, _, resident[int(name)] = stat_of(int(name))
            mine = set(self.roots)
            while True:
                more = {p for p, parent in parents.items() if parent in mine} - mine
                if not more:
                    break
                mine |= more
            self.peak = max(self.peak, sum(resident.get(p, 0) for p in mine))


class Sample:
    def __init__(self):
        self.rows = []

    def take(self, disk, command, daemon=None):
        """command to its end, and the sync."""
        disk.sync()
        written, start = disk.written(), time.monotonic()
        before = stat_of(daemon)[2] if daemon else 0
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        watch = Watch([child.pid] + ([daemon] if daemon else []))
        watch.start()
        errors = child.stderr.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        ready = time.monotonic() - start
        disk.sync()
        wall = time.monotonic() - start
        watch.over.set()
        if child.returncode != 0:
            raise SystemExit('bench: %s failed: %s' % (command, errors.decode(errors='replace')))
        cpu = usage.ru_utime + usage.ru_stime + (stat_of(daemon)[2] - before if daemon else 0)
        self.rows.append((wall, cpu, watch.peak, disk.written() - written, ready))

    def median(self, column):
        return sorted(row[column] for row in self.rows)[len(self.rows) // 2]


@contextlib.contextmanager
def containerd(disk):
    """A private one; its pid and how to ask it."""
    where = disk.where + '/containerd'
    os.mkdir(where)
    config = where + '/config.toml'
    with open(config, 'w') as f:
        f.write('version = 2\nroot = "%s/root"\nstate = "%s/state"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
                '[grpc]\naddress = "%s/sock"\n' % (where, where, where))
    with open(where + '/log', 'w') as log:
        daemon = subprocess.Popen(['containerd', '--config', config], stdout=log, stderr=log)
    ctr = ['ctr', '--address', where + '/sock']
    try:
        deadline = time.monotonic() + 30
        while subprocess.run(ctr + ['version'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                             check=False).returncode and time.monotonic() < deadline:
            time.sleep(0.1)
        yield daemon.pid, ctr
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait()


@contextlib.contextmanager
def dockerd(disk):
    """A private one that leaves the host's network alone."""
    where = disk.where + '/docker'
    os.mkdir(where)
    host = 'unix://%s/sock' % where
    with open(where + '/log', 'w') as log:
        daemon = subprocess.Popen(['dockerd', '--host', host, '--data-root', where + '/data', '--exec-root', where + '/exec',
                                   '--pidfile', where + '/pid', '--bridge', 'none', '--iptables=false', '--ip6tables=false',
                                   '--storage-driver', 'overlay2'], stdout=log, stderr=log)
    docker = ['docker', '--host', host]
    try:
        deadline = time.monotonic() + 60
        while subprocess.run(docker + ['version'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                             check=False).returncode and time.monotonic() < deadline:
            time.sleep(0.2)
        yield daemon.pid, docker
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait()


def skopeo_umoci(disk, reference, sample):
    fs = disk.where
    sample.take(disk, ['sh', '-c', 'skopeo copy --quiet --insecure-policy --src-tls-verify=false docker://%s oci:%s/o:x && '
                       'umoci unpack --image %s/o:x %s/b' % (reference, fs, fs, fs)])


def podman(disk, reference, sample):
    fs = disk.where
    sample.take(disk, ['podman', '--root', fs + '/root', '--runroot', fs + '/run', '--storage-driver', 'overlay', 'pull',
                       '--quiet', '--tls-verify=false', reference])


def ctr(disk, reference, sample):
    with containerd(disk) as (pid, command):
        sample.take(disk, command + ['images', 'pull', '--plain-http', reference], pid)


def docker(disk, reference, sample):
    with dockerd(disk) as (pid, command):
        sample.take(disk, command + ['pull', '--quiet', reference], pid)


def cwrun(disk, reference, sample):
    # it syncs by itself before an image counts as there
    sample.take(disk, [CWRUN, 'pull', '--quiet', '--store', disk.where + '/images', '--insecure-registry',
                       reference.split('/')[0], reference])


CONTESTANTS = {'skopeo + umoci': (skopeo_umoci, 'umoci'), 'podman': (podman, 'podman'), 'containerd': (ctr, 'containerd'),
               'dockerd': (docker, 'dockerd'),
               'cwrun pull': (cwrun, None)}


def contest(scratch, address, name, runs, only):
    reference = '%s/library/%s:latest' % (address, name)
    samples = {}
    for _ in range(runs):
        for who, (pull, program) in CONTESTANTS.items():
            if (only and who not in only) or (program and not shutil.which(program)):
                continue
            disk = Disk(scratch, 8192)
            try:
                pull(disk, reference, samples.setdefault(who, Sample()))
            finally:
                disk.close()
    return samples


def table(title, samples, tar):
    peers = [s for who, s in samples.items() if who != 'cwrun pull']
    best = [min(p.median(c) for p in peers) if peers else 0 for c in range(3)]
    print('\n### %s\n\n| | wall s (median) | min | max | CPU s | peak RSS MB | to device MB | x tar | x fastest peer | CPU x |'
          % title)
    print('|---|---|---|---|---|---|---|---|---|---|')
    for who, s in samples.items():
        walls = [row[0] for row in s.rows]
        print('| %s | %.2f | %.2f | %.2f | %.2f | %.0f | %.0f | %s | %.2f | %.2f |' % (
            who, s.median(0), min(walls), max(walls), s.median(1), s.median(2) / 1e6, s.median(3) / 1e6,
            '%.2f' % (s.median(3) / tar) if tar else '-', s.median(0) / best[0] if peers else 0,
            s.median(1) / best[1] if peers else 0), flush=True)


def again(scratch, address, runs):
    """ml is there; ml2 differs in its last layer of 1 MB; then a removal."""
    rows = []
    for _ in range(runs):
        disk, s = Disk(scratch, 8192), Sample()
        try:
            cwrun(disk, address + '/library/ml:latest', s)
            cwrun(disk, address + '/library/ml2:latest', s)
            s.take(disk, [CWRUN, 'rmi', '--store', disk.where + '/images', address + '/library/ml:latest',
                          address + '/library/ml2:latest'])
            rows.append([(r[0], r[1], r[3]) for r in s.rows])
        finally:
            disk.close()
    print('\n### cwrun: pulled, pulled again with a last layer of 1 MB changed, removed\n')
    print('| | wall s | CPU s | to device MB |\n|---|---|---|---|')
    for n, what in enumerate(('first', 'again', 'removed')):
        middle = sorted(row[n] for row in rows)[len(rows) // 2]
        print('| %s | %.2f | %.2f | %.1f |' % (what, middle[0], middle[1], middle[2] / 1e6), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--runs', type=int, default=3)
    parser.add_argument('--only', action='append', help='small, base, ml, again; repeatable')
    parser.add_argument('--who', action='append', help='only these contestants; repeatable')
    args = parser.parse_args()
    scratch = tempfile.mkdtemp(prefix='bench.', dir='/var/tmp')
    layout = os.path.join(pull_images.CACHE, 'layout')
    try:
        made = pull_images.build(layout)
        with registry.Registry(os.path.join(scratch, 'registry')) as r:
            for name, layers, tar, blob in made:
                r.push(layout, name + ':latest', 'library/' + name, 'latest')
                if name == 'ml2' or args.only and name not in args.only:
                    continue
                title = 'pull to ready and synced root: %s (%s layers%s)' % (
                    name, layers, ', tar %.0f MB, gzip %.0f MB' % (int(tar) / 1e6, int(blob) / 1e6) if tar != '-' else '')
                table(title, contest(scratch, r.address, name, args.runs, args.who), int(tar) if tar != '-' else 0)
            if not args.only or 'again' in args.only:
                again(scratch, r.address, args.runs)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == '__main__':
    main()
