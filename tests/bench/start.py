#!/usr/bin/env python3
"""The cost of one start: create to exit of a static `true`, in turn by each runtime. Run where cgroup v2 is."""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(TOP, 'tests/fixtures')]
import image  # noqa: E402
import registry  # noqa: E402
import timing  # noqa: E402

BIN = os.path.join(TOP, 'build/bin')
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


def runtimes(scratch, runs, limits):
    directory = bundle(os.path.join(scratch, 'limits' if limits else 'plain'), limits)
    contestants = {'crun': ['crun'], 'runc': ['runc'], 'cwrt': [os.path.join(BIN, 'cwrt')]}
    samples = {name: timing.Sample() for name in contestants}
    for n in range(runs + 2):
        for name, command in contestants.items():
            timing.once(command + ['run', '--bundle', directory, 'bench-%s-%d' % (name, n)], samples[name])
    for s in samples.values():
        for values in (s.wall, s.cpu):
            del values[:2]
    timing.table('start: create to exit of a static true, same config.json%s' %
                 (', with memory, cpuset and pids limits' if limits else ''), samples, 'crun')


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
    directory = os.path.join(scratch, 'plain')
    contestants = {
        'crun': ['crun', 'run', '--bundle', directory],
        'runc': ['runc', 'run', '--bundle', directory],
        'cwrun run': [os.path.join(BIN, 'cwrun'), 'run', '--store', store, name, '--', '/bin/true'],
        'cwrun run --userns none': [os.path.join(BIN, 'cwrun'), 'run', '--userns', 'none', '--store', store, name, '--',
                                    '/bin/true'],
    }
    samples = {key: timing.Sample() for key in contestants}
    for n in range(runs + 1):
        for key, command in contestants.items():
            unique = [] if 'cwrun' in key else ['image-%s-%d' % (key, n)]
            timing.once(command + unique, samples[key])
    for s in samples.values():
        for values in (s.wall, s.cpu):
            del values[:1]
    timing.table('start: cwrun run of /bin/true on a pulled image (overlay root, seccomp, user namespace)', samples, 'crun')


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--runs', type=int, default=15)
    args = parser.parse_args()
    scratch = tempfile.mkdtemp(prefix='bench.', dir='/scratch' if os.path.isdir('/scratch') else '/var/tmp')
    try:
        runtimes(scratch, args.runs, False)
        runtimes(scratch, args.runs, True)
        from_image(scratch, args.runs)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == '__main__':
    main()
