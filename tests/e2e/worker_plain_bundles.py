#!/usr/bin/env python3
"""A plain bundle, one on its output, failures: right states, texts and contents."""
# needs: root net
# rows: B055 B064 B068 B069 B070 B071 B083 B091 B095 B096 B097 B113 B124
import worker_lab
from worker_lab import check, equal

worker_lab.enter()
with worker_lab.Lab() as lab:
    lab.worker()
    first = lab.run('echo hello; pwd; echo $HOME $CODALAB; cat; echo oops >&2; mkdir d; echo 5 > d/n; ln -s d l')
    bundle = lab.wait(first, 'ready')
    equal(bundle['metadata'].get('exitcode'), 0)
    equal(lab.cat(first), 'hello\n/%s\n/%s true\n' % (first, first))
    equal(lab.cat(first, 'stderr'), 'oops\n')

    second = lab.run('cat first/d/n; readlink first/l; touch first/x || echo read-only; ls', ('first', first, ''))
    lab.wait(second, 'ready')
    equal(lab.cat(second), '5\nd\nread-only\nfirst\nstderr\nstdout\n')
    check(not any(f.startswith('first') for f in lab.client.files(second)), lab.client.files(second))

    failed = lab.run('exit 3')
    bundle = lab.wait(failed, 'failed')
    equal((bundle['metadata']['exitcode'], bundle['metadata']['failure_message']), (3, 'Exit code 3'))

    syntax = lab.run('echo (')
    bundle = lab.wait(syntax, 'failed')
    check('syntax error' in bundle['metadata']['failure_message'], bundle['metadata'])
