#!/usr/bin/env python3
# needs: root cgroup2 alone
# timeout: 240
"""containerd's runc shim with cwrt as its binary (BinaryName): run, exec into, pause, limit, kill, remove; nothing is left."""
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
TOP = tempfile.mkdtemp(prefix='ctrd-')
RUN = tempfile.mkdtemp(prefix='ctrd-', dir='/run')  # a socket's path is short
SOCKET = os.path.join(RUN, 's')
IMAGE = 'localhost/demo:latest'
SHOW = os.environ.get('CW_TRANSCRIPT')  # a file for docs/conformance.md
CONFIG = '''version = 2
root = "%s/root"
state = "%s/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.btrfs",
                    "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.tracing.processor.v1.otlp",
                    "io.containerd.internal.v1.opt"]
[grpc]
  address = "%s"
[ttrpc]
  address = "%s.ttrpc"
''' % (TOP, RUN, SOCKET, SOCKET)


def ctr(*args, check=True, **kw):
    p = subprocess.run(['ctr', '--address', SOCKET, '--namespace', 'test', *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, text=True, timeout=100, **kw)
    if SHOW:
        with open(SHOW, 'a') as f:
            f.write('$ ctr %s\n%s%s' % (' '.join(args), p.stdout, p.stderr) + ('(%d)\n' % p.returncode if p.returncode else ''))
    assert not check or p.returncode == 0, (args, p.returncode, p.stdout, p.stderr)
    return p


def run(*args, **kw):
    return ctr('run', '--runtime', 'io.containerd.runc.v2', '--runc-binary', CWRT, *args, **kw)


def start():
    path = os.path.join(TOP, 'config.toml')
    with open(path, 'w') as f:
        f.write(CONFIG)
    log = open(os.path.join(TOP, 'log'), 'w')
    daemon = subprocess.Popen(['containerd', '--config', path, '--log-level', 'warn'], stdout=log, stderr=log)
    end = time.time() + 60
    while ctr('version', check=False).returncode != 0:
        assert time.time() < end and daemon.poll() is None, open(log.name).read()
        time.sleep(0.1)
    layout, archive = os.path.join(TOP, 'layout'), os.path.join(TOP, 'image.tar')
    image.build(layout, preset='busybox')
    subprocess.run(['skopeo', 'copy', '--quiet', 'oci:%s:demo:latest' % layout, 'oci-archive:%s:%s' % (archive, IMAGE)], check=True)
    ctr('images', 'import', '--snapshotter', 'overlayfs', archive)
    return daemon


def await_status(name, want):
    end = time.time() + 60
    while want not in ctr('tasks', 'ls').stdout.partition(name)[2].partition('\n')[0]:
        assert time.time() < end, ctr('tasks', 'ls').stdout
        time.sleep(0.1)


def runs_and_says_how_it_ended():
    assert run('--rm', IMAGE, 'a', 'echo', 'hello').stdout == 'hello\n'
    assert run('--rm', IMAGE, 'b', 'sh', '-c', 'exit 7', check=False).returncode == 7
    p = run('--rm', IMAGE, 'c', '/no/such/program', check=False)
    assert p.returncode != 0 and 'not found' in p.stderr, p
    p = run('--rm', '--env', 'A=b', '--cwd', '/tmp', '--seccomp', '--read-only', IMAGE, 'd', 'sh', '-c',
            'echo $A; pwd; grep Seccomp: /proc/self/status; (echo x > /x) 2>/dev/null || echo read-only')
    assert p.stdout.split() == ['b', '/tmp', 'Seccomp:', '2', 'read-only'], p


def limits():
    p = run('--rm', '--memory-limit', str(64 << 20), '--cpus', '0.5', IMAGE, 'e', 'cat', '/proc/self/cgroup')
    assert p.stdout.startswith('0::/'), p
    run('--detach', '--memory-limit', str(64 << 20), IMAGE, 'f', 'sleep', '100')
    assert open('/sys/fs/cgroup/test/f/memory.max').read().strip() == str(64 << 20)
    assert 'memory' in ctr('tasks', 'metrics', 'f').stdout
    ctr('tasks', 'kill', '--signal', 'KILL', 'f')
    await_status('f', 'STOPPED')
    ctr('tasks', 'rm', 'f', check=False)
    ctr('containers', 'rm', 'f')


def lives_is_entered_and_ends():
    run('--detach', IMAGE, 'one', 'sh', '-c', 'trap "exit 3" TERM; while :; do sleep 0.1; done')
    await_status('one', 'RUNNING')
    p = ctr('tasks', 'exec', '--exec-id', 'x1', 'one', 'sh', '-c', 'echo inside; exit 4', check=False)
    assert p.returncode == 4 and p.stdout == 'inside\n', p
    p = ctr('tasks', 'exec', '--exec-id', 'x2', '--cwd', '/tmp', '--user', '1000', 'one', 'sh', '-c', 'pwd; id -u')
    assert p.stdout.split() == ['/tmp', '1000'], p
    assert len(ctr('tasks', 'ps', 'one').stdout.splitlines()) >= 2
    ctr('tasks', 'pause', 'one')
    await_status('one', 'PAUSED')
    ctr('tasks', 'resume', 'one')
    await_status('one', 'RUNNING')
    ctr('tasks', 'kill', 'one')
    await_status('one', 'STOPPED')
    assert ctr('tasks', 'rm', 'one', check=False).returncode in (0, 3)
    ctr('containers', 'rm', 'one')


def created_and_removed():
    run('--detach', IMAGE, 'two', 'sleep', '100')
    ctr('tasks', 'rm', '--force', 'two', check=False)
    ctr('containers', 'rm', 'two')
    assert not ctr('containers', 'ls', '-q').stdout.strip()


def nothing_is_left():
    end = time.time() + 60
    while True:  # containerd's shims end a little later
        left = [os.path.join(d, f) for d, _, files in os.walk(RUN) for f in files if f in ('state.json', 'start.sock')]
        left += [d for d, _, _ in os.walk('/sys/fs/cgroup/test') if d != '/sys/fs/cgroup/test']
        if not left:
            return
        assert time.time() < end, left
        time.sleep(0.1)


if __name__ == '__main__':
    failed = 0
    process = start()
    try:
        for case in (runs_and_says_how_it_ended, limits, lives_is_entered_and_ends, created_and_removed, nothing_is_left):
            try:
                case()
                print('ok', case.__name__, flush=True)
            except Exception as e:  # a test's own failure of any kind
                failed += 1
                print('not ok', case.__name__, type(e).__name__, e, flush=True)
        if failed:
            print(open(os.path.join(TOP, 'log')).read()[-3000:])
    finally:
        for name in ctr('tasks', 'ls', '-q', check=False).stdout.split():
            ctr('tasks', 'rm', '--force', name, check=False)
        process.terminate()
        process.wait()
        for directory in (TOP, RUN):
            shutil.rmtree(directory, ignore_errors=True)
    raise SystemExit(1 if failed else 0)
