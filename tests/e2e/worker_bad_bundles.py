#!/usr/bin/env python3
"""What is wrong with a bundle is said by that bundle; the worker and the others go on."""
# needs: root net
# timeout: 150
# rows: B087 B098 B133 B149 B196 D15 D25 D51 D54
import os
import subprocess
import time

import worker_lab
from worker_lab import check, equal, image

worker_lab.enter()
with worker_lab.Lab() as lab:
    lab.worker()
    parent = lab.run('echo x > f')
    lab.wait(parent, 'ready')
    # A neighbour that must not notice anything: it writes the time since boot, in hundredths, ten times a second.
    neighbour = lab.run('until [ -e go ]; do read -r up _ </proc/uptime; echo ${up/./} >> ticks; sleep 0.1; done; echo fine')
    lab.wait(neighbour, 'running')
    layout = os.path.join(lab.directory, 'layout')
    image.build(layout, 'nobash:1', 'busybox')
    lab.registry.push(layout, 'nobash:1', 'library/nobash', '1')
    image.Layout(layout).add('broken:1', image.Image([image.Layer([image.file('x', b'1'), image.Entry('x/y', data=b'2')])]))
    lab.registry.push(layout, 'broken:1', 'library/broken', '1')
    bad = {
        'no bash': lab.run('true', image=lab.registry.address + '/library/nobash:1'),
        'broken image': lab.run('true', image=lab.registry.address + '/library/broken:1'),
        'no such image': lab.run('true', image=lab.registry.address + '/library/nothing:1'),
        'no reference': lab.run('true', image='UPPER CASE:x'),
        'no such path': lab.run('true', ('d', parent, 'no/such/path')),
        'key ..': lab.run('true', ('a/../../b', parent, '')),
        'key in key': lab.run('true', ('a', parent, ''), ('a/b', parent, '')),
        'key over proc': lab.run('true', ('/proc/self', parent, '')),
        'too long': lab.run('true ' + 'x' * 140000),
    }
    wanted = {
        'no bash': 'Cannot start Docker container: ',
        'broken image': "Failed to download Docker image: Can't download image: ",
        'no such image': "Failed to download Docker image: Can't download image: ",
        'no reference': "Failed to download Docker image: Can't download image: ",
        'no such path': 'Failed to download dependency d: Dependency download failed: ',
        'key ..': 'Dependency key a/../../b: ".." is not allowed',
        'key in key': '[Errno 17] File exists: ',
        'key over proc': 'Dependency key /proc/self: /proc is the container',
        'too long': 'Cannot start Docker container: the command is longer than ',
    }
    for name, uuid in bad.items():
        bundle = lab.wait(uuid, 'failed')
        check(bundle['metadata']['failure_message'].startswith(wanted[name]), name, bundle['metadata']['failure_message'])
    # Limits are kept while the server is away (D25): the process is gone before the server is back.
    marker = 'sleep 87654'
    late = lab.run(marker, time='6s')
    lab.wait(late, 'running')
    lab.client.go_away(seconds=8)
    lab.until(lambda: subprocess.run(['pgrep', '-f', marker], stdout=subprocess.DEVNULL).returncode == 1, 'the time limit')
    begun = time.monotonic()
    bundle = lab.client.wait(late, 'failed', timeout=60, tolerate=True)
    check(bundle['metadata']['failure_message'].startswith('Time limit exceeded.'), bundle['metadata'])
    print('the server was back %.1f s after the limit was kept' % (time.monotonic() - begun))
    lab.client.write(uuid=neighbour, subpath='go', string='')
    lab.wait(neighbour, 'ready')
    equal(lab.cat(neighbour), 'fine\n')
    ticks = [int(t) for t in lab.cat(neighbour, 'ticks').split()]
    gaps = [b - a for a, b in zip(ticks, ticks[1:])]
    check(max(gaps) < 2000, 'the neighbour stood still', max(gaps))
