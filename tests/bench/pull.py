#!/usr/bin/env python3
"""Registry to ready, synced root: cworker against skopeo + umoci, podman, containerd and dockerd; cold each time, on a fresh
journaled loop file system. cworker twice: as `cwrun pull`, a program started for it, and as a process that is there already.

For each: wall seconds (to the end of a sync of that file system), CPU seconds of all its processes, the largest sum of
resident memory, and what reached the device.

Beside them the floors: the CPU that one thread takes for inflating with the same library, both SHA-256 sums and the same files
(pull_floor.c), the time that as many threads as there are processors take for it and the sync, and what the file system
writes for those files whoever makes them. They read the blobs from memory; what the registry needs on the same processors is told.
"""
import argparse
import contextlib
import json
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
import image  # noqa: E402
from disk import Disk  # noqa: E402
import pull_images  # noqa: E402
import registry  # noqa: E402

CWRUN = os.path.join(TOP, 'build/bin/cwrun')
RESIDENT = os.path.join(TOP, 'build/bench/pull_resident')
LAYOUT = os.path.join(pull_images.CACHE, 'layout')
TICK = os.sysconf('SC_CLK_TCK')
PAGE = os.sysconf('SC_PAGE_SIZE')


def stat_of(pid):
    """(parent, own CPU seconds, CPU seconds with those it has waited for, resident bytes)"""
    with open('/proc/%d/stat' % pid) as f:
        fields = f.read().rsplit(')', 1)[1].split()
    own = sum(map(int, fields[11:13]))
    return int(fields[1]), own / TICK, (own + sum(map(int, fields[13:15]))) / TICK, int(fields[21]) * PAGE


def cpu_of(pid):
    """CPU seconds of a process that lives and of the children it has waited for; its own to the microsecond."""
    before, after = stat_of(pid)[1:3]
    return time.clock_gettime(~pid << 3 | 2) + after - before  # clock_getcpuclockid(3)


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
    source = None  # pid of the registry, whose work is on the same processors

    def __init__(self, rows=()):
        self.rows = list(rows)

    def take(self, disk, command, daemon=None):
        """command to its end, and the sync."""
        disk.sync()
        written, start = disk.written(), time.monotonic()
        before, served = cpu_of(daemon) if daemon else 0, cpu_of(self.source) if self.source else 0
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
        cpu = usage.ru_utime + usage.ru_stime + (cpu_of(daemon) - before if daemon else 0)
        self.rows.append((wall, cpu, watch.peak, disk.written() - written, ready,
                          cpu_of(self.source) - served if self.source else 0))

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


@contextlib.contextmanager
def resident(disk, address):
    """One of ours; its pid and the command that has it pull, up to its answer."""
    where = disk.where + '/ask'
    os.mkdir(where)
    for name in ('in', 'out'):
        os.mkfifo(where + '/' + name)
    daemon = subprocess.Popen(['sh', '-c', 'exec "$0" "$1" "$2" <"$3/in" >"$3/out"', RESIDENT, disk.where + '/images', address, where])
    with open(where + '/in', 'w'), open(where + '/out'):  # so that it does not see an end between two
        yield daemon.pid, ['sh', '-c', 'echo "$1" >"$0/in" && read -r a <"$0/out" && case $a in (ok*) ;; (*) echo "$a" >&2; exit 1; esac', where]
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


def stays(disk, reference, sample):
    with resident(disk, reference.split('/')[0]) as (pid, command):
        sample.take(disk, command + [reference], pid)


def blobs(reference):
    layout = image.Layout(LAYOUT)
    name = reference.rsplit('/', 1)[1]
    manifest = json.loads(image.read(layout.blob_path(layout.find(name)['digest'])))
    return [layout.blob_path(layer['digest']) for layer in manifest['layers']]


def floor(disk, reference, sample):
    sample.take(disk, [FLOOR, disk.where, *blobs(reference)])


def floor_of_all(disk, reference, sample):
    sample.take(disk, [FLOOR, '-j', str(len(os.sched_getaffinity(0))), disk.where, *blobs(reference)])


def tar(disk, reference, sample):
    sample.take(disk, ['sh', '-c', 'n=0; for blob; do mkdir "$0/$n" && tar -C "$0/$n" -xzf "$blob" || exit; n=$((n + 1)); done',
                       disk.where, *blobs(reference)])


FLOOR = os.path.join(TOP, 'build/bench/pull_floor')
OURS = 'cwrun pull', 'cworker, resident'
FLOORS = {'floor: one thread': (floor, None), 'floor: all processors': (floor_of_all, None), 'floor: tar xzf': (tar, 'tar')}
CONTESTANTS = {'skopeo + umoci': (skopeo_umoci, 'umoci'), 'podman': (podman, 'podman'), 'containerd': (ctr, 'containerd'),
               'dockerd': (docker, 'dockerd'),
               OURS[0]: (cwrun, None), OURS[1]: (stays, None), **FLOORS}


def contest(scratch, address, name, runs, only, samples):
    reference = '%s/library/%s:latest' % (address, name)
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


def table(title, samples, tar_bytes):
    peers = [s for who, s in samples.items() if who not in OURS and who not in FLOORS]
    best = [min(p.median(c) for p in peers) if peers else 0 for c in range(3)]
    print('\n### %s\n\n| | wall s (median) | min | max | CPU s | peak RSS MB | to device MB | x tar | x fastest peer | CPU x |'
          % title)
    print('|---|---|---|---|---|---|---|---|---|---|')
    for who, s in samples.items():
        walls = [row[0] for row in s.rows]
        print('| %s | %.3f | %.3f | %.3f | %.3f | %.0f | %.1f | %s | %.2f | %.2f |' % (
            who, s.median(0), min(walls), max(walls), s.median(1), s.median(2) / 1e6, s.median(3) / 1e6,
            '%.2f' % (s.median(3) / tar_bytes) if tar_bytes else '-', s.median(0) / best[0] if peers else 0,
            s.median(1) / best[1] if peers else 0), flush=True)
    against_the_floor(samples)


def against_the_floor(samples):
    one, all_of_them = (samples.get(who) for who in list(FLOORS)[:2])
    if not one or not all_of_them:
        return
    cores = len(os.sched_getaffinity(0))
    print('\nAgainst the floor (one thread: %.2f CPU s, over %d processors %.2f s; threads on all of them: %.2f s; %.1f MB to the device):' % (
        one.median(1), cores, one.median(1) / cores, all_of_them.median(0), one.median(3) / 1e6))
    for who in OURS:
        if who in samples:
            s = samples[who]
            print('%s: CPU x %.2f, wall x %.2f of threads on all processors and x %.2f of the CPU over all, bytes x %.3f; registry %.2f CPU s' % (
                who, s.median(1) / one.median(1), s.median(0) / all_of_them.median(0), s.median(0) / (one.median(1) / cores),
                s.median(3) / one.median(3), s.median(5)), flush=True)


def again(scratch, address, runs):
    """ml is there; ml2 and ml5 differ in their last layer, of 1 MB and of 5 %; then a removal."""
    steps = {'first': 'ml', 'again, 1 MB changed': 'ml2', 'again, 5 % changed': 'ml5', 'again, nothing changed': 'ml5'}
    rows = {}
    for n in range(2 * runs):
        disk, s, who = Disk(scratch, 8192), Sample(), OURS[n % 2]
        names = ['%s/library/%s:latest' % (address, name) for name in steps.values()]
        try:
            if who == OURS[0]:
                for name in names:
                    cwrun(disk, name, s)
            else:
                with resident(disk, address) as (pid, command):
                    for name in names:
                        s.take(disk, command + [name], pid)
            s.take(disk, [CWRUN, 'rmi', '--store', disk.where + '/images', *sorted(set(names))])
            rows.setdefault(who, []).append([(r[0], r[1], r[3]) for r in s.rows])
        finally:
            disk.close()
    print('\n### pulled, pulled again with a last layer changed, removed\n')
    print('| | | wall s | CPU s | to device MB |\n|---|---|---|---|---|')
    for who, all_of_it in rows.items():
        for n, what in enumerate([*steps, 'removed']):
            middle = sorted(row[n] for row in all_of_it)[len(all_of_it) // 2]
            print('| %s | %s | %.3f | %.3f | %.1f |' % (who, what, middle[0], middle[1], middle[2] / 1e6), flush=True)


def start_of_a_run(disk, reference):
    """Seconds of a whole run of `true` on an image that is there, asked for anew at the registry."""
    start = time.monotonic()
    subprocess.run([CWRUN, 'run', '-q', '--cgroup', 'partial', '--network', 'none', '--store', disk.where + '/images', '--pull', 'always',
                    '--insecure-registry', reference.split('/')[0], reference, '/bin/true'], check=True, stdin=subprocess.DEVNULL)
    return time.monotonic() - start


def in_the_way(scratch, address):
    """Runs one after the other, alone and while ml is removed and what it held is given back."""
    small, ml = ('%s/library/%s:latest' % (address, name) for name in ('small', 'ml'))
    disk, s = Disk(scratch, 8192), Sample()
    try:
        cwrun(disk, small, s)
        start_of_a_run(disk, small)
        rows, removals = {'alone': [start_of_a_run(disk, small) for _ in range(20)], 'beside the removal of ml': []}, []
        for _ in range(2):
            cwrun(disk, ml, s)
            removal = subprocess.Popen([CWRUN, 'rmi', '--store', disk.where + '/images', ml], stdout=subprocess.DEVNULL)
            begin = time.monotonic()
            while removal.poll() is None:
                rows['beside the removal of ml'].append(start_of_a_run(disk, small))
            removals.append(time.monotonic() - begin)
    finally:
        disk.close()
    print('\n### a run of `true` on small, milliseconds (two removals took %s s)\n' % ' and '.join('%.2f' % x for x in removals))
    print('| | runs | median | max |\n|---|---|---|---|')
    for what, row in rows.items():
        print('| %s | %d | %.0f | %.0f |' % (what, len(row), 1000 * sorted(row)[len(row) // 2], 1000 * max(row)), flush=True)


def build_floor():
    os.makedirs(os.path.dirname(FLOOR), exist_ok=True)
    subprocess.run(['gcc', '-O2', '-o', FLOOR, os.path.join(HERE, 'pull_floor.c'), '-lisal', '-lcrypto', '-lpthread'], check=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--runs', type=int, default=3)
    parser.add_argument('--only', action='append', help='small, base, ml, one, again, way; repeatable')
    parser.add_argument('--who', action='append', help='only these contestants; repeatable')
    parser.add_argument('--rows', metavar='FILE', help='what was measured is kept there, and joined with what is there already')
    args = parser.parse_args()
    kept = {}
    if args.rows and os.path.exists(args.rows):
        with open(args.rows) as f:
            kept = json.load(f)
    scratch = tempfile.mkdtemp(prefix='bench.', dir='/var/tmp')
    build_floor()
    try:
        made = pull_images.build(LAYOUT)
        with registry.Registry(os.path.join(scratch, 'registry')) as r:
            Sample.source = r.process.pid
            for name, layers, tar, blob in made:
                wanted = not args.only or name in args.only
                if wanted or ('again' in args.only and name.startswith('ml')) or ('way' in args.only and name in ('small', 'ml')):
                    r.push(LAYOUT, name + ':latest', 'library/' + name, 'latest')
                if not wanted or name in ('ml2', 'ml5'):
                    continue
                title = 'pull to ready and synced root: %s (%s layers%s)' % (
                    name, layers, ', tar %.0f MB, gzip %.0f MB' % (int(tar) / 1e6, int(blob) / 1e6) if tar != '-' else '')
                samples = {who: Sample(rows) for who, rows in kept.get(name, {}).items()}
                contest(scratch, r.address, name, args.runs, args.who, samples)
                table(title, samples, int(tar) if tar != '-' else 0)
                kept[name] = {who: s.rows for who, s in samples.items()}
                if args.rows:
                    with open(args.rows, 'w') as f:
                        json.dump(kept, f)
            if not args.only or 'again' in args.only:
                again(scratch, r.address, args.runs)
            if not args.only or 'way' in args.only:
                in_the_way(scratch, r.address)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == '__main__':
    main()
