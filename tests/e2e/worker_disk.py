#!/usr/bin/env python3
"""A disk limit is the kernel's where it has project quotas (the machine's /scratch): bundle directory and writable layer."""
# needs: root net cgroup2 alone
# timeout: 100
# rows: B105 D26
import os

import worker_lab
from worker_lab import check

worker_lab.enter()
BOUND = (2 << 20) + (512 << 10) + (16 << 20)  # what 2m allows, with the room for small files


with worker_lab.Lab() as lab:
    w = lab.worker()
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
        check(peak <= BOUND, 'the limit was passed', path, peak)
        print('%s: %d of %d bytes' % (path, peak, BOUND))
