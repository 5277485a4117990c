#!/usr/bin/env python3
"""The cost of one start: create to exit of a static `true`, in turn by each runtime and by a bare C program; memory; many
at once; `cwrun run`. Run where cgroup v2 is.

--bare is for a host whose cgroup v2 has no controllers, because version 1 has them: the same without limits, natively. The
program is started again in a mount namespace of its own with the unified hierarchy at /sys/fs/cgroup, which is what makes
crun and cwrt take it for a host of today, and a tmpfs at /run, which every host has there."""
import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(TOP, 'tests/fixtures')]
import image  # noqa: E402
import registry  # noqa: E402
import timing  # noqa: E402

BIN = os.path.join(TOP, 'build/bin')
FLOOR = 'bare floor (C)'
ALONE, SETTLE = 20, 5
LIMITS = {'memory': {'limit': 256 << 20}, 'cpu': {'cpus': '0'}, 'pids': {'limit': 100}}


def bundle(directory, limits):
    """The config.json that `crun spec` writes, with /true as its command: the same for all."""
    root = os.path.join(directory, 'rootfs')
    os.makedirs(os.path.join(root, 'bin'))
    shutil.copy(shutil.which('busybox'), os.path.join(root, 'bin/true'))
    for d in ('proc', 'sys', 'dev', 'tmp'):
        os.mkdir(os.path.join(root, d))
    subprocess.run(['crun', 'spec'], cwd=directory, check=True)
    path = os.path.join(directory, 'config.json')
    with open(path) as f:
        config = json.load(f)
    config['process']['args'], config['process']['terminal'] = ['/bin/true'], False
    if limits:
        config['linux'].setdefault('resources', {}).update(LIMITS)
    with open(path, 'w') as f:
        json.dump(config, f)
    return directory


def compiled(scratch, name, flags=('-static',)):
    """tests/bench/NAME.c as a program; one that lies in tests/bench already is taken where there is no compiler."""
    program, carried = os.path.join(scratch, name), os.path.join(HERE, name)
    if os.path.exists(carried):
        return carried
    if not os.path.exists(program):
        subprocess.run(['gcc', '-O2', *flags, '-o', program, carried + '.c'], check=True)
    return program


def crun(scratch):
    """crun raises RLIMIT_MEMLOCK to no limit, for kernels that count eBPF programs against it, and ends where it may not:
    as root without CAP_SYS_RESOURCE (some virtual machines). There it is told that it has."""
    hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    with open('/proc/self/status') as f:
        caps = int(re.search(r'CapEff:\s*(\S+)', f.read()).group(1), 16)
    if hard == resource.RLIM_INFINITY or caps >> 24 & 1:
        return ['crun']
    return ['env', 'LD_PRELOAD=' + compiled(scratch, 'memlock', ('-shared', '-fPIC')), 'crun']


def spawn(scratch, count, at_once, command):
    """Start it so often: the wall and CPU seconds of each, and those of all together."""
    p = subprocess.run([compiled(scratch, 'spawn'), str(count), str(at_once), *command], stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if p.returncode:
        raise SystemExit('bench: %s: %s' % (' '.join(command), p.stderr))
    lines = [line.split() for line in p.stdout.splitlines()]
    return [(int(wall) / 1e6, int(cpu) / 1e6) for wall, cpu in lines[:-1]], int(lines[-1][1]) / 1e6


def once(scratch, command, sample):
    (wall, cpu), = spawn(scratch, 1, 1, command)[0]
    sample.wall.append(wall)
    sample.cpu.append(cpu)


def floor(scratch, directory, name='bench-floor'):
    """The bare floor: a C program that does only what has to be done."""
    return [compiled(scratch, 'floor'), os.path.join(directory, 'rootfs'), '/sys/fs/cgroup/' + name, '/bin/true']


def runtimes(scratch, runs, limits, names):
    directory = bundle(os.path.join(scratch, 'limits' if limits else 'plain'), limits)
    ways = {'crun': crun(scratch), 'runc': ['runc'], 'cwrt': [os.path.join(BIN, 'cwrt')]}
    commands = {name: way + ['run', '--bundle', directory, 'bench-%s-%%' % name] for name, way in ways.items() if name in names}
    if not limits:
        commands[FLOOR] = floor(scratch, directory)
    samples = {name: timing.Sample() for name in commands}
    for n in range(runs + 2):
        for name, command in commands.items():
            once(scratch, [word.replace('%', str(n)) for word in command], samples[name])
    for s in samples.values():
        for values in (s.wall, s.cpu):
            del values[:2]
    timing.table('start: create to exit of a static true, same config.json%s' %
                 (', with memory, cpuset and pids limits' if limits else ''), samples, 'crun')
    return {name: s.median('wall') for name, s in samples.items()}


def memory(scratch):
    """Peak and anonymous memory of a runtime that waits for its container, in KiB."""
    waiting = bundle(os.path.join(scratch, 'waiting'), False)
    path = os.path.join(waiting, 'config.json')
    with open(path) as f:
        config = json.load(f)
    shutil.copy(shutil.which('busybox'), os.path.join(waiting, 'rootfs/bin/sleep'))
    config['process']['args'] = ['/bin/sleep', '1000']
    with open(path, 'w') as f:
        json.dump(config, f)
    print('\n### memory: the runtime while its container runs\n\n| | peak KiB (VmHWM) | of it anonymous now KiB |\n|---|---|---|')
    for name, command in {'crun': crun(scratch), 'runc': ['runc'], 'cwrt': [os.path.join(BIN, 'cwrt')]}.items():
        child = subprocess.Popen(command + ['run', '--bundle', waiting, 'memory-' + name], stdin=subprocess.DEVNULL)
        while subprocess.run(command + ['state', 'memory-' + name], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                             text=True).stdout.find('"running"') < 0:
            pass
        with open('/proc/%d/status' % child.pid) as f:
            status = dict(line.split(':', 1) for line in f if ':' in line)
        print('| %s | %s | %s |' % (name, status['VmHWM'].split()[0], status['RssAnon'].split()[0]), flush=True)
        # it removes the container itself when that has ended
        subprocess.run(command + ['kill', 'memory-' + name, 'KILL'], check=True)
        child.wait()


def left_over():
    groups = [d for d, _, _ in os.walk('/sys/fs/cgroup') if '/many-' in d]
    states = [os.path.join(d, n) for d in ('/run/cwrt', '/run/crun') if os.path.isdir(d) for n in os.listdir(d) if n.startswith('many-')]
    return groups + states


def alone(scratch, command):
    """Wall milliseconds of one start, nothing beside it: the median of many."""
    return 1000 * statistics.median(wall for wall, _ in spawn(scratch, ALONE, 1, command)[0])


def many(scratch, count, at_once):
    """As fast as possible: the time of one start under load, a processor, against the time alone, taken before and after."""
    directory = bundle(os.path.join(scratch, 'many'), False)
    cores = len(os.sched_getaffinity(0))
    print('\n### %d containers, %d at once, on %d processors\n\n| | all, s | one, times processors, ms | alone, ms | ratio | left behind |\n'
          '|---|---|---|---|---|---|' % (count, at_once, cores))
    ways = {name: way + ['run', '--bundle', directory, 'many-%s-%%' % name]
            for name, way in (('crun', crun(scratch)), ('cwrt', [os.path.join(BIN, 'cwrt')]))}
    # what the kernel alone makes of so many at once
    ways[FLOOR] = floor(scratch, directory, 'many-floor-%')
    for name, command in ways.items():
        before = alone(scratch, command)
        seconds = spawn(scratch, count, at_once, command)[1]
        left = len(left_over())
        time.sleep(SETTLE)  # the kernel takes network namespaces down later; that is not the next one's
        one = statistics.mean((before, alone(scratch, command)))
        each = 1000 * seconds * cores / count
        print('| %s | %.2f | %.2f | %.2f | %.2f | %d |' % (name, seconds, each, one, each / one, left), flush=True)


def from_image(scratch, runs):
    """cwrun run on a pulled image against crun and runc on the same image unpacked before."""
    layout = os.path.join(scratch, 'layout')
    image.build(layout, preset='busybox')
    store = os.path.join(scratch, 'work/images')
    with registry.Registry(os.path.join(scratch, 'registry')) as r:
        r.push(layout, 'demo:latest', 'library/demo', 'latest')
        name = r.address + '/library/demo:latest'
        subprocess.run([os.path.join(BIN, 'cwrun'), 'pull', '--quiet', '--store', store, '--insecure-registry', r.address,
                        name], check=True, stdout=subprocess.DEVNULL)
    directory = bundle(os.path.join(scratch, 'unpacked'), False)
    contestants = {
        'crun': crun(scratch) + ['run', '--bundle', directory],
        'runc': ['runc', 'run', '--bundle', directory],
        'cwrun run': [os.path.join(BIN, 'cwrun'), 'run', '--store', store, name, '--', '/bin/true'],
        'cwrun run --userns none': [os.path.join(BIN, 'cwrun'), 'run', '--userns', 'none', '--store', store, name, '--',
                                    '/bin/true'],
    }
    samples = {key: timing.Sample() for key in contestants}
    for n in range(runs + 1):
        for key, command in contestants.items():
            unique = [] if 'cwrun' in key else ['image-%s-%d' % (key, n)]
            once(scratch, command + unique, samples[key])
    for s in samples.values():
        for values in (s.wall, s.cpu):
            del values[:1]
    timing.table('start: cwrun run of /bin/true on a pulled image (overlay root, seccomp, user namespace)', samples, 'crun')


def set_up_bare():
    """In a mount namespace of our own."""
    subprocess.run(['umount', '--recursive', '--lazy', '/sys/fs/cgroup'], stderr=subprocess.DEVNULL)
    for kind, where in (('cgroup2', '/sys/fs/cgroup'), ('tmpfs', '/run')):
        subprocess.run(['mount', '-t', kind, kind, where], check=True)


PARTS = ('plain', 'limits', 'memory', 'many', 'image')


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--runs', type=int, default=15)
    parser.add_argument('--many', type=int, default=500)
    parser.add_argument('--at-once', type=int, default=64)
    parser.add_argument('--parts', default=','.join(PARTS), help='of ' + ','.join(PARTS))
    parser.add_argument('--without-runc', action='store_true')
    parser.add_argument('--bare', action='store_true')
    args = parser.parse_args()
    parts = args.parts.split(',')
    if args.bare and os.environ.get('BENCH_BARE') != 'inside':
        os.environ['BENCH_BARE'] = 'inside'
        os.execvp('unshare', ['unshare', '--mount', '--propagation', 'private', '--', sys.executable] + sys.argv)
    if args.bare:
        set_up_bare()
        parts = [p for p in parts if p in ('plain', 'many')]
    names = ['crun', 'cwrt'] + ([] if args.without_runc else ['runc'])
    scratch = tempfile.mkdtemp(prefix='bench.', dir='/scratch' if os.path.isdir('/scratch') else '/var/tmp')
    try:
        plain = runtimes(scratch, args.runs, False, names) if 'plain' in parts else None
        limited = runtimes(scratch, args.runs, True, names) if 'limits' in parts else None
        if plain and limited:
            print('\nwith limits / without: ' + ', '.join('%s %.2f' % (n, limited[n] / plain[n]) for n in limited))
        if 'memory' in parts:
            memory(scratch)
        if 'many' in parts:
            many(scratch, args.many, args.at_once)
        if 'image' in parts:
            from_image(scratch, args.runs)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == '__main__':
    main()
