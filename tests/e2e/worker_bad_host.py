#!/usr/bin/env python3
"""What is wrong with the host or the registry: said on the right channel, nothing left, the worker goes on."""
# needs: root net
# timeout: 200
# rows: B148 B149 S08 S64 S67
import os
import subprocess

import worker_lab
from worker_lab import BIN, check, image

worker_lab.enter()
WRONG = 'sha256:' + '0' * 64


def status_of(command, **more):
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, **more)
    return result.returncode, result.stderr


def without_cgroup2(command):
    """The command in a mount namespace of its own in which cgroup2 is not mounted."""
    hide = 'for m in $(awk \'$3 == "cgroup2" || $3 == "cgroup" { print $2 }\' /proc/mounts | sort -r) /sys/fs/cgroup; do ' \
           'umount -l "$m" 2>/dev/null; done; exec "$@"'
    return ['unshare', '--mount', '--propagation', 'private', '--', 'sh', '-c', hide, 'sh', *command]


def failure(lab, uuid):
    return lab.wait(uuid, 'failed')['metadata']['failure_message']


with worker_lab.Lab() as lab:
    # the programs themselves
    command = [word for word in lab.command('none', ()) if word not in ('--cgroup', 'full', 'partial')]
    code, text = status_of(without_cgroup2(command))
    check(code == 1 and 'cgroup' in text, 'no cgroup v2', code, text)
    code, text = status_of(without_cgroup2([os.path.join(BIN, 'cwrun'), 'doctor']))
    check(code == 1, 'doctor without cgroup v2', code, text)
    nobody = {'user': 65534, 'group': 65534, 'extra_groups': []}
    code, text = status_of([os.path.join(BIN, 'cworkerd'), '--server', lab.service.url, '--work-dir', lab.directory + '/no'],
                           env={'CODALAB_USERNAME': 'u', 'CODALAB_PASSWORD': 'p'}, **nobody)
    check(code == 1 and 'root' in text, 'not root', code, text)
    check(not os.path.exists(lab.directory + '/no'), 'a directory is left')

    # its image store on a small disk
    small = os.path.join(lab.directory, 'small')
    os.mkdir(small)
    with open(small + '.img', 'wb') as f:
        f.truncate(24 << 20)
    subprocess.run(['mke2fs', '-q', '-t', 'ext4', small + '.img'], check=True)
    subprocess.run(['mount', '-o', 'loop', small + '.img', small], check=True)
    try:
        lab.worker('--image-store', os.path.join(small, 'images'))
        layout = os.path.join(lab.directory, 'layout')
        image.Layout(layout).add('big:1', image.Image([image.Layer([image.file('big', image.filler_bytes(30 << 20, 7))])]))
        lab.registry.push(layout, 'big:1', 'library/big', '1')
        text = failure(lab, lab.run('true', image=lab.registry.address + '/library/big:1'))
        check("Can't download image" in text and any(w in text.lower() for w in ('space', 'free', 'room')), 'disk full', text)
        text = failure(lab, lab.run('true', image='%s/library/demo@%s' % (lab.registry.address, WRONG)))
        check(WRONG[:20] in text, 'wrong digest', text)
        good = lab.run('echo the worker goes on')
        lab.wait(good, 'ready')
        lab.registry.stop()
        text = failure(lab, lab.run('true', image=lab.registry.address + '/library/other:1'))
        check(lab.registry.address in text and 'other' in text, 'registry down', text)
        local = lab.run('echo what is here is enough')  # B148
        lab.wait(local, 'ready')
        for w in lab.workers:
            check(w.stop() == 0, 'stop')
    finally:
        subprocess.run(['umount', small], check=True)
