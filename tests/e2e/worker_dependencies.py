#!/usr/bin/env python3
"""Where dependencies appear: nested, absolute, ".", one parent under several keys; read-only, and never in results."""
# needs: root net
# rows: B063 B083 B084 B085 B086 B088 B089 B090 B091 B092 B159 B160 D48 D50 D52
import os

import worker_lab
from worker_lab import check, equal

worker_lab.enter()
with worker_lab.Lab() as lab:
    lab.worker()
    parent = lab.run('echo one > f1; mkdir -p sub/deep; echo two > sub/f2; ln -s f1 link; ln -s /etc/passwd out; echo "a b" > "with blank"')
    lab.wait(parent, 'ready')

    many = lab.run(
        'cat foo/bar/f1 foo/bar2/sub/f2 x/f1 file sub; cat /opt/there/f1; ls foo; echo mine > foo/own; cat "$PWD"/blank',
        ('foo/bar', parent, ''), ('foo/bar2', parent, ''), ('x', parent, ''), ('file', parent, 'f1'),
        ('sub', parent, 'sub/f2'), ('/opt/there', parent, ''), ('blank', parent, 'with blank'))
    lab.wait(many, 'ready')
    equal(lab.cat(many), 'one\ntwo\none\none\ntwo\none\nbar\nbar2\na b\n')
    files = sorted(lab.client.files(many))
    check('foo/own' in files, files)  # the user's own file beside a dependency stays
    check(not [f for f in files if f.startswith(('x', 'file', 'foo/bar', 'blank', 'opt'))], files)
    check(not os.path.exists('/opt/there'), 'an absolute key touched the host')

    dot = lab.run('ls; cat f1 sub/f2 link; cat out >/dev/null && readlink out; touch sub/x 2>/dev/null || echo read-only',
                  ('.', parent, ''))
    lab.wait(dot, 'ready')
    equal(lab.cat(dot), 'f1\nlink\nout\nstderr\nstdout\nsub\nwith blank\none\ntwo\none\n/etc/passwd\nread-only\n')
    equal(sorted(f for f in lab.client.files(dot) if f in ('f1', 'link', 'out', 'sub', 'stdout')), ['stdout'])

    # Two runs at once: the end of one does not take the dependency from the other.
    slow = lab.run('sleep 3; cat d/f1', ('d', parent, ''))
    quick = lab.run('cat d/f1', ('d', parent, ''))
    lab.wait(quick, 'ready')
    # Reads of a running bundle do not show it, and go to the parent.
    lab.wait(slow, ('running', 'finalizing', 'ready'))
    lab.wait(slow, 'ready')
    equal(lab.cat(slow), 'one\n')

    # What lies in the directory from an earlier attempt is used.
    again = lab.run('cat checkpoint 2>/dev/null || echo none')
    lab.wait(again, 'ready')
    equal(lab.cat(again), 'none\n')
