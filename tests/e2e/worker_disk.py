#!/usr/bin/env python3
"""A disk limit is the kernel's where it has project quotas, ext4 (the machine's /scratch) and XFS: bundle directory and writable layer."""
# needs: root net cgroup2 alone
# timeout: 150
# rows: B105 D26
import os
import shutil
import subprocess
import tempfile

import worker_lab
from worker_lab import check, equal

worker_lab.enter()
BOUND = (2 << 20) + (512 << 10) + (16 << 20)  # what 2m allows, with the room for small files


FIRST, COUNT = 0x63770000, 0x40000  # the ids of src/base/quota.c


def projects(where):
    """Ids of ours with a limit: {id: kilobytes} (xfs_quota knows XFS only; ext4's are read by the unit test)."""
    text = subprocess.run(['xfs_quota', '-x', '-c', 'report -p -N -n -b', where], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in text.splitlines() if line.strip().startswith('#')]
    return {int(r[0][1:]): int(r[3]) for r in rows if FIRST <= int(r[0][1:]) < FIRST + COUNT and int(r[3])}


def limits_hold(lab):
    for path in ('big', '/opt/big'):
        uuid = lab.run('cat /dev/zero > %s' % path, disk='2m', memory='64m', metadata={'exclude_patterns': ['big']})
        file = os.path.join(lab.work_dir, 'runs', uuid, path)
        if path[0] == '/':
            file = os.path.join(lab.work_dir, 'containers/w1', uuid, 'overlay/upper', path[1:])
        peak = 0
        while lab.client.info(uuid)['state'] not in ('failed', 'ready', 'killed'):
            if os.path.exists(file):
                try:
                    peak = max(peak, os.stat(file).st_blocks * 512)
                except OSError:
                    pass
            lab.until(lambda: True, '')
        bundle = lab.wait(uuid, 'failed', 90)
        check('Disk limit 2mb exceeded.' in bundle['metadata']['failure_message'], bundle['metadata'])
        check(0 < peak <= BOUND, 'the limit was passed', path, peak)
        print('%s: %d of %d bytes' % (path, peak, BOUND))


with worker_lab.Lab() as lab:
    lab.worker()
    limits_hold(lab)

xfs = tempfile.mkdtemp(prefix='worker-xfs.', dir='/scratch')
with open(xfs + '.img', 'wb') as f:
    f.truncate(400 << 20)
subprocess.run(['mkfs.xfs', '-q', xfs + '.img'], check=True)
subprocess.run(['mount', '-o', 'loop,prjquota', xfs + '.img', xfs], check=True)
try:
    with worker_lab.Lab(where=xfs) as lab:
        lab.worker()
        two = [lab.run('until [ -e go ]; do sleep 0.1; done', disk='3m', memory='64m') for _ in range(2)]
        for uuid in two:
            lab.wait(uuid, 'running')
        held = projects(xfs)
        equal(len(held), 4)  # of each its directory and its writable layer
        for uuid in two:
            lab.client.write(uuid=uuid, subpath='go', string='')
        for uuid in two:
            lab.wait(uuid, 'ready')
        lab.until(lambda: not projects(xfs), 'the ids to be given back')
        limits_hold(lab)
        lab.until(lambda: not projects(xfs), 'the ids to be given back')
finally:
    subprocess.run(['umount', xfs], check=True)
    shutil.rmtree(xfs)
    os.unlink(xfs + '.img')
