#!/usr/bin/env python3
"""The ways a worker ends: signal, handing runs back, idle, run count; and its exit statuses."""
# needs: root net
# timeout: 200
# rows: B008 B009 B028 B185 B186 B188 B189 B190 B193 B194 B195 B200 B201 B205 B050 B140 D16 D17 D28 D67 D73 D74
import os
import subprocess
import time

import worker_lab
from worker_lab import check, equal

worker_lab.enter()


def status_of(lab, *flags, **env):
    p = subprocess.run(lab.command('w9', flags), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90,
                       env={**os.environ, **env})
    return p.returncode, p.stderr


with worker_lab.Lab() as lab:
    # A signal leaves runs alone; the next start adopts them.
    w = lab.worker()
    run = lab.run('for i in 1 2 3 4 5 6 7 8; do sleep 0.5; done; echo done')
    lab.wait(run, 'running')
    equal(w.stop(), 0)
    check('is_terminating' not in w.log(), 'the body of a message is in the log')
    w.start()
    lab.wait(run, 'ready')
    equal(lab.cat(run), 'done\n')
    equal(w.stop(), 0)

    # With --pass-down-termination they go back to the server, and another worker takes them.
    w = lab.worker('--pass-down-termination', name='w2')
    run = lab.run('cat n 2>/dev/null; echo x >> n; [ $(wc -l < n) -ge 2 ] || sleep 100; cat n')
    lab.wait(run, 'running')
    path = os.path.join(lab.work_dir, 'runs', run, 'n')
    lab.until(lambda: os.path.exists(path) and os.path.getsize(path), 'the command to begin')
    # Those that one check-in tells together are told once, like a single one.
    others = [lab.run('[ -e n ] || { touch n; sleep 100; }', resources={'cpus': 0}, memory='32m') for _ in range(4)]
    for other in others:
        lab.wait(other, 'running')
        begun = os.path.join(lab.work_dir, 'runs', other, 'n')
        lab.until(lambda: os.path.exists(begun), 'the command to begin')  # noqa: B023
    equal(w.stop(), 0)
    equal([lab.client.info(u)['state'] for u in [run, *others]], ['staged'] * 5)
    check('Disconnected from server!' not in w.log(), w.log())
    w = lab.worker(name='w3')
    lab.wait(run, 'ready')
    equal(lab.cat(run), 'x\nx\nx\n')  # the directory was kept
    for other in others:
        lab.wait(other, 'ready')
    equal(w.stop(), 0)

    # Idle.
    w = lab.worker('--exit-when-idle', name='w4')
    equal(w.process.wait(60), 0)
    check('Worker was idle for 0 seconds. Exiting...' in w.log(), w.log())

    # Run count, and what it made is deleted.
    w = lab.worker('--exit-after-num-runs', '1', '--delete-work-dir-on-exit', name='w5')
    run = lab.run('echo only')
    lab.wait(run, 'ready')
    equal(w.process.wait(60), 0)
    check(not os.path.isdir(os.path.join(lab.work_dir, 'state', 'w5')), 'its state is left')

    # Where others keep things too (Azure: /tmp), only what the worker made is deleted.
    common = os.path.join(lab.directory, 'common')
    for name in ('images/mine', 'runs/mine', 'other'):
        os.makedirs(os.path.join(common, name))
    w = lab.worker('--work-dir', common, '--exit-after-num-runs', '1', '--delete-work-dir-on-exit', name='w6')
    lab.wait(lab.run('echo x'), 'ready')
    equal(w.process.wait(60), 0)
    equal(sorted(os.listdir(common)), ['images', 'other', 'runs'])
    equal(os.listdir(os.path.join(common, 'runs')), ['mine'])
    check('mine' in os.listdir(os.path.join(common, 'images')), 'what was there is gone')

    # An upload under way does not hold up the end; the next start does it again (D73).
    w = lab.worker(name='w7')
    lab.client.fault(endpoint='upload', rate=20000)
    run = lab.run('head -c 3000000 /dev/urandom > big; echo done')
    lab.until(lambda: 'Uploading results' in str(lab.client.info(run)['metadata'].get('run_status')), 'the upload')
    begun = time.monotonic()
    equal(w.stop(), 0)
    check(time.monotonic() - begun < 45, 'it waited for the upload')
    lab.client.clear_faults()
    w.start()
    lab.wait(run, 'ready')
    equal(lab.cat(run), 'done\n')
    equal(w.stop(), 0)

    # Exit statuses.
    code, text = status_of(lab, '--no-such-flag')
    equal(code, 2)
    check('error:' in text and 'usage:' in text, text)
    code, text = status_of(lab, '--idle-seconds', 'x')
    equal(code, 2)
    check("argument --idle-seconds: invalid int value: 'x'" in text, text)
    code, text = status_of(lab, '--tag', 'a b')
    equal(code, 1)
    check('Worker tag must only contain letters, numbers or hyphens.' in text, text)
    code, text = status_of(lab, '--cpuset', '0,99999')
    equal(code, 1)
    check('CPUSET_STR invalid: CPUs out of range' in text, text)
    lax = os.path.join(lab.directory, 'lax')
    with open(lax, 'w') as f:
        f.write('u\np\n')
    os.chmod(lax, 0o640)
    code, text = status_of(lab, '--password-file', lax)
    equal((code, text), (1, 'Permissions on password file are too lax.\nOnly the user should be allowed to access the '
                            'file.\nOn Linux, run:\nchmod 600 %s\n' % lax))
    os.chmod(lax, 0o600)
    code, text = status_of(lab, '--password-file', lax)
    equal(code, 1)
    check('Cannot log into the bundle service. Please check your worker credentials.' in text, text)
    check('Username: "u" , server "%s"' % lab.service.url in text, text)
    code, text = status_of(lab, '--server', 'http://127.0.0.1:9')
    equal(code, 1)
    check('cannot be reached' in text and 'credentials' not in text, text)
