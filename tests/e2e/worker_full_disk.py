#!/usr/bin/env python3
"""The disk of the work directory is full: who filled it is told why it failed, who cannot start is told, too; state is still
written, the worker lives, and what comes when there is room again runs."""
# needs: root net
# timeout: 150
# rows: B191 S64
import os
import subprocess

import worker_lab
from worker_lab import check, equal

worker_lab.enter()
# Takes every block as soon as it is free.
FILL = 'while [ ! -e /tmp/go ]; do cat /dev/zero >> big; echo x > full; sleep 0.02; done'


def free(path):
    v = os.statvfs(path)
    return v.f_bavail * v.f_frsize


def message(lab, uuid):
    return lab.wait(uuid, 'failed')['metadata']['failure_message']


with worker_lab.Lab() as lab:
    os.mkdir(lab.work_dir)
    with open(lab.work_dir + '.img', 'wb') as f:
        f.truncate(160 << 20)
    subprocess.run(['mke2fs', '-q', '-t', 'ext4', '-m', '0', lab.work_dir + '.img'], check=True)
    subprocess.run(['mount', '-o', 'loop', lab.work_dir + '.img', lab.work_dir], check=True)
    try:
        w = lab.worker('--image-store', os.path.join(lab.directory, 'images'), '--scratch-dir', os.path.join(lab.directory, 'scratch'))
        # Its own end, by the disk: the reason is on its page; there is no room for it in its stderr.
        uuid = lab.run('cat /dev/zero > big', metadata={'exclude_patterns': ['big']})
        text = message(lab, uuid)
        check('The disk of this worker is full' in text, text)
        lab.until(lambda: free(lab.work_dir) > 64 << 20, 'its room to be given back')
        # One that handled it itself and succeeded is a success.
        uuid = lab.run('cat /dev/zero > big; rm big; echo went on; true')
        bundle = lab.wait(uuid, 'ready')
        equal(bundle['metadata'].get('failure_message') or '', '')

        # The disk stays full: the worker goes on, a bundle that comes now says why it cannot run, and a restart finds the runs.
        filler = lab.run(FILL, metadata={'exclude_patterns': ['big']})
        lab.wait(filler, 'running')
        lab.until(lambda: os.path.exists(os.path.join(lab.work_dir, 'runs', filler, 'full')) and free(lab.work_dir) < 1 << 20,
                  'the disk to be full')
        late = lab.run('head -c 3000000 /dev/zero > file')
        text = message(lab, late)
        check('No space left on device' in text or 'The disk of this worker is full' in text, text)
        w.kill9()
        w.start()
        lab.until(lambda: lab.client.info(filler)['state'] == 'running', 'the run to be taken up again')
        lab.client.kill(uuid=filler)
        equal(lab.wait(filler, 'killed')['metadata']['failure_message'], 'Kill requested')
        lab.until(lambda: free(lab.work_dir) > 64 << 20, 'its room to be given back')
        good = lab.run('echo there is room again')
        lab.wait(good, 'ready')
        equal(lab.cat(good), 'there is room again\n')
        equal(w.stop(), 0)
    finally:
        subprocess.run(['umount', '--lazy', lab.work_dir], check=True)
