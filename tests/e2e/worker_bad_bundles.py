#!/usr/bin/env python3
"""What is wrong with a bundle is said by that bundle; the worker and the others go on."""
# needs: root net
# rows: B087 B098 B133 B149 B196
import worker_lab
from worker_lab import check, equal

worker_lab.enter()
with worker_lab.Lab() as lab:
    lab.worker()
    parent = lab.run('echo x > f')
    lab.wait(parent, 'ready')
    bad = {
        'no such image': lab.run('true', image=lab.registry.address + '/library/nothing:1'),
        'no reference': lab.run('true', image='UPPER CASE:x'),
        'no such path': lab.run('true', ('d', parent, 'no/such/path')),
        'key ..': lab.run('true', ('a/../../b', parent, '')),
        'key in key': lab.run('true', ('a', parent, ''), ('a/b', parent, '')),
        'key over proc': lab.run('true', ('/proc/self', parent, '')),
        'too long': lab.run('true ' + 'x' * 140000),
    }
    good = lab.run('echo fine')
    wanted = {
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
    lab.wait(good, 'ready')
    equal(lab.cat(good), 'fine\n')
