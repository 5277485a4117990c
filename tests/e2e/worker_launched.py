#!/usr/bin/env python3
"""As CodaLab's worker managers start it: by the name cl-worker, credentials in the environment, a service behind TLS, and an
end of its own when there is nothing left to do."""
# needs: root net
# timeout: 150
# rows: B018 B180 B193 S17
import os
import subprocess
import time

import worker_lab
from worker_lab import check, equal

worker_lab.enter()
IDLE = 3
PASSWORD = 'pass&word+7Zq'


class Managed(worker_lab.Lab):
    """No password file; the service's own CA."""

    def command(self, name, flags):
        words = super().command(name, flags)
        at = words.index('--password-file')
        return words[:at] + words[at + 2:]


def noise(n):
    return b'%d' % time.monotonic_ns() + os.urandom(n)


with Managed(tls=True, password=PASSWORD) as lab:
    c = lab.client
    lab.program = 'cl-worker'
    os.environ.update(CODALAB_USERNAME=lab.service.user, CODALAB_PASSWORD=PASSWORD)
    ca = ('--ca-file', lab.service.ca)

    # Without the CA nothing is told to that server, and it is not the password that is blamed.
    p = subprocess.run(lab.command('w0', ()), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90)
    equal(p.returncode, 1)
    check('certificate' in p.stderr and 'cannot be reached' in p.stderr and 'credentials' not in p.stderr, p.stderr)
    equal(c.requests(endpoint='token'), [])

    # A bundle that waits before there is a worker, as for a manager that starts one because of it: it is run before the end.
    data = noise(300000)
    parent = c.upload(data)
    first = lab.run('cat data > copy; echo done', ('data', parent, ''))
    w = lab.worker(*ca, '--exit-when-idle', '--idle-seconds', str(IDLE), '--tag', 'x')
    lab.wait(first, 'ready')
    equal(c.cat(first, 'copy'), data)
    equal(w.process.wait(60), 0)
    check('Worker was idle for %d seconds. Exiting...' % IDLE in w.log(), w.log())
    with open(w.log_path, errors='replace') as f:
        check(PASSWORD not in f.read(), 'the password is in the log')

    # The wake-up channel is behind the same TLS: nothing else makes this worker check in within ten minutes.
    w = lab.worker(*ca, '--checkin-frequency-seconds', '600', name='w2')
    lab.until(lambda: any(row['websocket'] for row in c.workers() if row['id'] == 'w2'), 'the wake-up channel')
    second = lab.run('until [ -e go ]; do sleep 0.1; done; head -c 3000000 /dev/urandom > big')
    lab.wait(second, 'running')
    c.write(uuid=second, subpath='go', string='')
    bundle = lab.wait(second, 'ready')
    check(bundle['metadata']['data_size'] >= 3000000, bundle['metadata'])
    equal(w.stop(), 0)
