#!/usr/bin/env python3
"""Disk limits are the kernel's where it has project quotas (the machine's /scratch), else they are measured; a full disk
keeps no run's end from being written down."""
# needs: root net cgroup2 alone
# timeout: 120
# rows: B105 B111 B112 D26
import os
import subprocess

import worker_lab
from worker_lab import check, equal

worker_lab.enter()
TEXT = 'Disk limit 20mb exceeded.'


def used(path):
    """Blocks of everything below, in bytes."""
    return int(subprocess.run(['du', '-s', '-B1', path], capture_output=True, text=True, check=True).stdout.split()[0])


with worker_lab.Lab() as lab:
    w = lab.worker()
    # Far faster than anybody measures: the kernel stops it, and the worker knows why it failed.
    fast = lab.run('head -c 300000000 /dev/zero > big; s=$?; du -k big > size; exit $s', disk='20m')
    # The writable layer is held to it as well.
    layer = lab.run('head -c 300000000 /dev/zero > /opt/big; s=$?; echo $(($(stat -c %b /opt/big) / 2048)) > size; exit $s', disk='20m')
    for uuid in (fast, layer):
        bundle = lab.wait(uuid, 'failed', 90)
        check(TEXT in bundle['metadata']['failure_message'], bundle['metadata'])
        size = int(lab.cat(uuid, 'size').split()[0])
        check(size < (60 << 10 if uuid == fast else 60), 'the limit was passed by far', uuid, size)
    # A slow one is ended, as everywhere.
    slow = lab.run('head -c 25000000 /dev/zero > big; sleep 1000', disk='20m')
    bundle = lab.wait(slow, 'failed', 90)
    equal((bundle['metadata']['failure_message'], bundle['metadata'].get('exitcode')), (TEXT, None))
    # Within its limit nothing is noticed.
    within = lab.run('head -c 10000000 /dev/zero > /opt/x && head -c 10000000 /dev/zero > y && echo fine', disk='20m')
    lab.wait(within, 'ready', 90)
    unlimited = lab.run('head -c 70000000 /dev/zero > /opt/x && echo fine')
    lab.wait(unlimited, 'ready', 90)

    # A full disk: the run that fills it fails of that, its end is written down, and the worker goes on.
    small = os.path.join(lab.directory, 'small')
    os.mkdir(small)
    equal(w.stop(), 0)
    with open(small + '.img', 'wb') as f:
        f.truncate(160 << 20)
    subprocess.run(['mke2fs', '-q', '-t', 'ext4', '-m', '0', small + '.img'], check=True)
    subprocess.run(['mount', '-o', 'loop', small + '.img', small], check=True)
    try:
        full = lab.worker('--work-dir', os.path.join(small, 'work'), '--image-store', os.path.join(lab.work_dir, 'images'),
                          name='w2')
        reserve = os.path.join(small, 'work/state/w2/reserve')
        check(os.stat(reserve).st_blocks * 512 >= 8 << 20, 'no reserve')
        run = lab.run('cat /dev/zero > big; echo end of it >&2; until [ -e /tmp/never ]; do sleep 0.1; done')
        path = os.path.join(small, 'work/runs', run, 'big')
        lab.until(lambda: os.path.exists(path) and os.statvfs(small).f_bavail * 4096 < 1 << 20, 'a full disk', 90)
        lab.client.kill(uuid=run)
        bundle = lab.wait(run, 'killed', 90)
        good = lab.run('echo fine')
        lab.wait(good, 'ready', 90)
        lab.until(lambda: os.path.exists(reserve), 'the reserve to be there again')
        equal(full.stop(), 0)
        equal([f for f in os.listdir(os.path.join(small, 'work/state/w2')) if f.startswith('0x')], [])
    finally:
        subprocess.run(['umount', small], check=True)
