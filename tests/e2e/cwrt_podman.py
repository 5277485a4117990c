#!/usr/bin/env python3
# needs: root cgroup2 alone
# timeout: 240
"""podman with cwrt as its runtime: run, exec into, pause, limit, stop, remove; nothing is left."""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(os.path.dirname(HERE), 'fixtures')]
import image  # noqa: E402

CWRT = os.path.abspath(os.path.join(os.environ.get('CW_BUILD', 'build'), 'bin/cwrt'))
TOP = tempfile.mkdtemp(prefix='podman-')
IMAGE = 'localhost/demo:latest'
SHOW = os.environ.get('CW_TRANSCRIPT')  # a file for docs/conformance.md


def podman(*args, check=True, **kw):
    # our own store, no CNI, no systemd: what concerns the runtime is all there
    command = ['podman', '--root', TOP + '/store', '--runroot', TOP + '/run', '--tmpdir', TOP + '/tmp', '--storage-driver', 'overlay',
               '--cgroup-manager', 'cgroupfs', '--events-backend', 'file', '--runtime', CWRT]
    p = subprocess.run(command + list(args), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                       timeout=100, **kw)
    if SHOW:
        with open(SHOW, 'a') as f:
            f.write('$ podman %s\n%s%s' % (' '.join(args), p.stdout, p.stderr) + ('(%d)\n' % p.returncode if p.returncode else ''))
    assert not check or p.returncode == 0, (args, p.returncode, p.stdout, p.stderr)
    return p


def run(*args, **kw):
    return podman('run', '--network', 'none', *args, **kw)


def load():
    layout, archive = os.path.join(TOP, 'layout'), os.path.join(TOP, 'image.tar')
    image.build(layout, preset='busybox')
    subprocess.run(['skopeo', 'copy', '--quiet', 'oci:%s:demo:latest' % layout, 'docker-archive:%s:%s' % (archive, IMAGE)], check=True)
    podman('load', '--quiet', '--input', archive)


def runs_and_says_how_it_ended():
    assert run('--rm', IMAGE, 'echo', 'hello').stdout == 'hello\n'
    assert run('--rm', IMAGE, 'sh', '-c', 'exit 7', check=False).returncode == 7
    p = run('--rm', IMAGE, '/no/such/program', check=False)
    assert p.returncode == 127 and 'not found' in p.stderr, p
    p = run('--rm', '--user', '1000:1000', '--hostname', 'box', '--env', 'A=b', '--workdir', '/tmp', IMAGE, 'sh', '-c',
            'id -u; id -g; hostname; echo $A; pwd')
    assert p.stdout.split() == ['1000', '1000', 'box', 'b', '/tmp'], p


def limits_and_volumes():
    volume = os.path.join(TOP, 'volume')
    os.makedirs(volume)
    p = run('--rm', '--memory', '64m', '--pids-limit', '50', '--cpus', '0.5', '--volume', volume + ':/v', '--read-only', '--tmpfs', '/t',
            IMAGE, 'sh', '-c', 'cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max; echo x > /v/file; '
            'echo y > /t/f; (echo z > /z) 2>/dev/null || echo read-only')
    assert p.stdout.split() == [str(64 << 20), '50', '50000', '100000', 'read-only'], p
    assert open(volume + '/file').read() == 'x\n'


def user_namespace():
    p = run('--rm', '--uidmap', '0:100000:65536', '--gidmap', '0:200000:65536', IMAGE, 'cat', '/proc/self/uid_map', '/proc/self/gid_map')
    assert [line.split() for line in p.stdout.splitlines()] == [['0', '100000', '65536'], ['0', '200000', '65536']], p


def soon(condition):
    """What podman's monitor does comes a little later."""
    end = time.time() + 60
    while not condition():
        assert time.time() < end, 'waited in vain'
        time.sleep(0.1)


def lives_is_entered_and_ends():
    run('--detach', '--name', 'one', IMAGE, 'sh', '-c', 'trap "echo bye; exit 3" TERM; echo up; while :; do sleep 0.1; done')
    soon(lambda: 'up' in podman('logs', 'one').stdout)
    assert podman('exec', 'one', 'sh', '-c', 'echo inside; exit 4', check=False).returncode == 4
    p = podman('exec', '--env', 'X=y', '--user', '1000', '--workdir', '/tmp', 'one', 'sh', '-c', 'echo $X; id -u; pwd')
    assert p.stdout.split() == ['y', '1000', '/tmp'], p
    # a terminal, by way of the monitor's console socket
    p = podman('exec', '--tty', 'one', 'sh', '-c', 'test -t 0 && tty')
    assert p.stdout.strip().startswith('/dev/pts/'), p
    assert 'sleep' in podman('top', 'one', 'args').stdout
    podman('pause', 'one')
    assert podman('inspect', '--format', '{{.State.Status}}', 'one').stdout.strip() == 'paused'
    podman('unpause', 'one')
    podman('stop', '--time', '30', 'one')
    assert podman('inspect', '--format', '{{.State.ExitCode}} {{.State.OOMKilled}}', 'one').stdout.split() == ['3', 'false']
    soon(lambda: podman('logs', 'one').stdout.split() == ['up', 'bye'])
    podman('start', 'one')
    podman('kill', 'one')
    podman('wait', 'one')
    podman('rm', 'one')
    assert not json.loads(podman('ps', '--all', '--format', 'json').stdout)


def pods_share_namespaces():
    run('--detach', '--name', 'first', IMAGE, 'sleep', '100')
    p = run('--rm', '--pid', 'container:first', '--ipc', 'container:first', IMAGE, 'ps', '-o', 'args')
    assert 'sleep 100' in p.stdout, p
    podman('rm', '--force', '--time', '0', 'first')


def nothing_is_left():
    state = [d for d in ('/run/cwrt', os.path.join(TOP, 'run')) if os.path.isdir(d)]
    soon(lambda: not subprocess.run(['find', *state, '-name', 'state.json', '-o', '-name', 'start.sock'], stdout=subprocess.PIPE,
                                    stderr=subprocess.DEVNULL, text=True).stdout)
    soon(lambda: not [d for d, _, _ in os.walk('/sys/fs/cgroup') if '/libpod-' in d and 'conmon' not in d])
    assert TOP + '/store' not in ''.join(line for line in open('/proc/self/mountinfo') if '/merged' in line)


if __name__ == '__main__':
    failed = 0
    try:
        load()
        for case in (runs_and_says_how_it_ended, limits_and_volumes, user_namespace, lives_is_entered_and_ends, pods_share_namespaces,
                     nothing_is_left):
            try:
                case()
                print('ok', case.__name__, flush=True)
            except Exception as e:  # a test's own failure of any kind
                failed += 1
                print('not ok', case.__name__, type(e).__name__, e, flush=True)
    finally:
        podman('rm', '--all', '--force', '--time', '0', check=False)
        subprocess.run(['umount', '-l', TOP + '/store/overlay'], stderr=subprocess.DEVNULL)
        shutil.rmtree(TOP, ignore_errors=True)
    raise SystemExit(1 if failed else 0)
