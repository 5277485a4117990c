#!/usr/bin/env python3
"""cwrun bundle UUID: the bundle and its dependencies come from the server, which learns nothing; what comes out is what a
worker on the same machine then reports. And ps, logs, stats, kill of the worker's runs over its socket, for root only."""
# needs: root net
# timeout: 150
# rows: B064 B083 B089 B091 B096 S60
import json
import os
import subprocess

import worker_lab
from cwrun_exec import Terminal
from worker_lab import BIN, check, equal, has_cgroup2

worker_lab.enter()


def cwrun(*words, status=0, **more):
    result = subprocess.run([os.path.join(BIN, 'cwrun'), *words], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                            timeout=100, **more)
    equal((result.returncode, words[0], result.stderr if result.returncode != status else ''), (status, words[0], ''))
    return result.stdout + result.stderr


with worker_lab.Lab() as lab:
    source = os.path.join(lab.directory, 'source')
    os.makedirs(os.path.join(source, 'sub'))
    with open(os.path.join(source, 'sub/f'), 'w') as f:
        f.write('of the parent\n')
    parent = lab.client.upload(source)
    uuid = lab.run('cat d/sub/f one; echo $CODALAB $HOME; touch d/x || echo read-only >&2; echo mine > own; exit 3',
                   ('d', parent, ''), ('one', parent, 'sub/f'), memory='300m')
    flags = ['--store', os.path.join(lab.work_dir, 'images'), '--insecure-registry', lab.registry.address, '--quiet',
             '--runtime-dir', os.path.join(lab.directory, 'rt-cwrun'), '--network-prefix', 'lab_cwrun',
             '--cgroup', 'full' if has_cgroup2() else 'partial']
    server = ['--server', lab.service.url, '--password-file', lab.service.credentials()]

    def results(name, *more, status=0):
        out = os.path.join(lab.directory, name)
        text = cwrun('bundle', *flags, *more, '--output', out, uuid, status=status)
        return text, out

    lab.wait(uuid, 'staged')
    text, out = results('first', *server, status=3)
    with open(os.path.join(out, 'stdout')) as f:
        mine = f.read()
    equal(mine, 'of the parent\nof the parent\ntrue /%s\n' % uuid)
    equal(sorted(os.listdir(out)), ['own', 'stderr', 'stdout'])
    check('state            failed' in text and 'exitcode         3' in text and 'Exit code 3' in text, text)
    blobs = len(lab.client.requests(endpoint='blob'))
    check(blobs > 0, 'nothing was fetched')

    # Again, with the user from the environment and another command: the dependencies are here already.
    who = {**os.environ, 'CODALAB_USERNAME': lab.service.user, 'CODALAB_PASSWORD': lab.service.password,
           'CODALAB_SERVER': lab.service.url}
    second = os.path.join(lab.directory, 'second')
    cwrun('bundle', *flags, '--overrides', 'command=echo other; cat one', '--output', second, uuid, env=who)
    with open(os.path.join(second, 'stdout')) as f:
        equal(f.read(), 'other\nof the parent\n')
    equal(len(lab.client.requests(endpoint='blob')), blobs)
    # A shell in the command's place: same directory, same environment; the status is the shell's.
    third = os.path.join(lab.directory, 'third')
    result = subprocess.run([os.path.join(BIN, 'cwrun'), 'bundle', *flags, *server, '--shell', '--output', third, uuid], text=True,
                            input='cat one; pwd; echo x > made; echo mine > stderr; exit 5\n', capture_output=True, timeout=100)
    equal((result.returncode, result.stdout), (5, 'of the parent\n/%s\n' % uuid))
    check('the command would be: cat d/sub/f' in result.stderr, result.stderr)
    equal(sorted(os.listdir(third)), ['made', 'stderr', 'stdout'])
    with open(os.path.join(third, 'stderr')) as f:
        equal(f.read(), 'mine\n')  # not emptied by the command's own shell, coming late
    # Left, and come back to; the run is over when the shell is.
    fourth = os.path.join(lab.directory, 'fourth')
    shell = Terminal([os.path.join(BIN, 'cwrun'), 'bundle', *flags, *server, '--shell', '--output', fourth, uuid])
    shell.type('echo in$((1 + 1)); touch was-here\n')
    shell.expect('in2')
    shell.type('\x10\x11')
    words = shell.expect(r'cwrun attach (--runtime-dir \S+ \S+ \d+)').group(1).split()
    back = Terminal([os.path.join(BIN, 'cwrun'), 'attach', *words])
    back.expect('in2')
    back.type('exit 4\n')
    equal((back.status(), shell.status()), (4, 0))
    check('was-here' in os.listdir(fourth), os.listdir(fourth))
    # The server has not noticed.
    equal(lab.client.info(uuid)['state'], 'staged')
    equal(lab.client.requests(endpoint='start_bundle') + lab.client.requests(endpoint='checkin'), [])

    # What is wrong is said, and nothing runs.
    check('give --server' in cwrun('bundle', *flags, uuid, status=125, env={k: v for k, v in os.environ.items() if k != 'CODALAB_SERVER'}))
    check('Not Found' in cwrun('bundle', *flags, *server, '0x' + '0' * 32, status=125))
    bad = os.path.join(lab.directory, 'bad')
    with open(os.open(bad, os.O_CREAT | os.O_WRONLY, 0o600), 'w') as f:
        f.write('nobody\nwrong\n')
    check('log into' in cwrun('bundle', *flags, '--server', lab.service.url, '--password-file', bad, uuid, status=125))

    # A worker comes: the very same.
    lab.worker()
    bundle = lab.wait(uuid, 'failed')
    equal((bundle['metadata']['exitcode'], bundle['metadata']['failure_message']), (3, 'Exit code 3'))
    equal(lab.cat(uuid), mine)
    equal(lab.client.files(uuid), sorted(os.listdir(out)))

    # The local service.
    live = lab.run('echo to out; echo to err >&2; sleep 1000')
    lab.wait(live, 'running')
    lab.until(lambda: 'to out' in cwrun('logs', '--runtime-dir', lab.runtime_dir, live[:10]), 'its log')
    local = ['--runtime-dir', lab.runtime_dir]

    def listed():
        return [(r['uuid'], r['stage'], r['image']) for r in json.loads(cwrun('ps', '--json', *local))]
    lab.until(lambda: len(listed()) == 1, 'the run before to go')  # the service took it for over before the worker heard so
    equal(listed(), [(live, 'RUNNING', lab.image)])
    check(live in cwrun('ps', *local) and live in cwrun('stats', *local, live[:8]))
    socket = os.path.join(lab.runtime_dir, 'control.sock')
    equal(os.stat(socket).st_mode & 0o777, 0o600)
    nobody = {'user': 65534, 'group': 65534, 'extra_groups': []}
    os.chmod(lab.directory, 0o755)
    os.chmod(lab.runtime_dir, 0o755)
    os.chmod(socket, 0o666)  # only who asks counts then
    ask = 'import socket, sys; s = socket.socket(socket.AF_UNIX); s.settimeout(20); s.connect(sys.argv[1]); ' \
          's.sendall(sys.argv[2].encode()); print(s.recv(100))'
    kill = json.dumps({'method': 'kill', 'uuid': live}) + '\n'
    result = subprocess.run(['/usr/bin/python3', '-c', ask, socket, kill], capture_output=True, text=True, **nobody)
    check(result.stdout.strip() == "b''" or 'Error' in result.stderr, result.stdout, result.stderr)
    equal(lab.client.info(live)['state'], 'running')
    cwrun('kill', *local, live[:12])
    equal(lab.wait(live, 'killed')['metadata']['failure_message'], 'Kill requested')
