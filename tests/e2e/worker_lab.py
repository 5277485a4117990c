"""A bundle service, a registry and cworkerd in network and mount namespaces of their own, for tests/e2e/worker_*.

    import worker_lab
    worker_lab.enter()                      # starts this program again inside
    with worker_lab.Lab(worker_timeout=20) as lab:
        worker = lab.worker('--tag', 'x')   # starts it, waits for "Worker started!"
        uuid = lab.run('echo hi')
        lab.wait(uuid, 'ready')

Where the host lacks cgroup v2 controllers the worker goes on with --cgroup=partial: a test that is about limits says
`needs: cgroup2`. Leaving the block ends everything, and fails when the service noted a violation, when something of
the worker is left, or when it had to be killed.
"""
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
BIN = os.path.join(TOP, os.environ.get('CW_BUILD', 'build'), 'bin')
sys.path[:0] = [os.path.join(TOP, 'tests/service'), os.path.join(TOP, 'tests/fixtures')]
import image  # noqa: E402
import reftest  # noqa: E402
import registry  # noqa: E402

STOP_SECONDS = 60
ENOUGH = 4  # CPUs, for as many runs as a test has at once


def enter():
    if os.environ.get('WORKER_LAB') == 'inside':
        subprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True)
        return
    os.environ['WORKER_LAB'] = 'inside'
    os.execvp('unshare', ['unshare', '--net', '--mount', '--propagation', 'private', '--', sys.executable]
              + [os.path.abspath(sys.argv[0])] + sys.argv[1:])


def has_cgroup2():
    try:
        with open('/sys/fs/cgroup/cgroup.controllers') as f:
            return {'cpuset', 'cpu', 'memory', 'pids', 'io'} <= set(f.read().split())
    except OSError:
        return False


class Worker:
    def __init__(self, lab, name, flags):
        self.lab, self.name, self.flags, self.process = lab, name, flags, None
        self.log_path = os.path.join(lab.directory, (name or 'any') + '.log')
        self.start()

    def start(self):
        """Start it; after it ended, again with the same id and directories."""
        with open(self.log_path, 'ab') as log:
            self.begin = log.tell()
            self.process = subprocess.Popen(self.lab.command(self.name, self.flags), stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, cwd=self.lab.directory)
        self.lab.until(lambda: 'Worker started!' in self.log() or self.process.poll() is not None,
                       'the worker to start')
        if 'Worker started!' not in self.log():
            raise AssertionError('cworkerd ended with %s:\n%s' % (self.process.returncode, self.log()))

    def log(self):
        """Of this start."""
        with open(self.log_path, 'rb') as f:
            f.seek(self.begin)
            return f.read().decode(errors='replace')

    def id(self):
        return re.search(r'my id is: (.*)', self.log()).group(1).strip()

    def kill9(self):
        self.process.kill()
        self.process.wait()
        time.sleep(0.1)  # the service learns of it, deals with what the dead one had sent, then forgives
        self.lab.client.worker_crashed(worker=self.name or self.id())

    def stop(self, number=signal.SIGTERM):
        """The exit status after a signal."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)


class Lab:
    def __init__(self, where=None, runtime_dir=None, **flags):
        """where: its directory is made there; flags: of the service."""
        where = where or ('/scratch' if os.path.isdir('/scratch') else '/var/tmp')
        self.directory = tempfile.mkdtemp(prefix='worker-lab.', dir=where)
        self.runtime_dir = runtime_dir or os.path.join(self.directory, 'rt')
        flags.setdefault('checkin_hold', 1)  # a state is told when the check-in before it has returned
        self.service = reftest.Service(os.path.join(self.directory, 'service'), **flags)
        self.registry = registry.Registry(os.path.join(self.directory, 'registry'))
        self.workers = []
        self.program = 'cworkerd'

    @property
    def client(self):
        return self.service.client

    @property
    def work_dir(self):
        return os.path.join(self.directory, 'work')

    def __enter__(self):
        layout = os.path.join(self.directory, 'layout')
        image.build(layout)
        self.service.start()
        self.registry.start()
        self.registry.push(layout, 'demo:latest', 'library/demo', 'latest')
        self.image = self.registry.address + '/library/demo:latest'
        return self

    def __exit__(self, kind, *_):
        problems = [] if kind is None else ['']
        for w in self.workers:
            if w.process.poll() is None:
                problems += self._stop(w)
        self.registry.stop()
        self.service.stop()
        if not problems:
            problems += self.leftovers()
            problems += ['%(row)s %(what)s (%(where)s)' % v for v in self.service.violations()]
        if problems:
            for w in self.workers:
                with open(w.log_path, errors='replace') as f:
                    sys.stderr.write('--- log of %s ---\n%s' % (w.name, f.read()[-int(os.environ.get("LAB_LOG", 8000)):]))
        shutil.rmtree(self.directory, ignore_errors=True)
        if kind is None and problems:
            raise AssertionError('\n'.join(problems))

    def _stop(self, w):
        try:
            status = w.stop()
            return [] if status == 0 else ['%s ended with %s' % (w.name, status)]
        except subprocess.TimeoutExpired:
            w.process.kill()
            w.process.wait()
            return ['%s did not end on SIGTERM' % w.name]

    def leftovers(self):
        """What a worker without runs must not leave."""
        found = []
        links = subprocess.run(['ip', '-o', 'link'], capture_output=True, text=True, check=True).stdout.splitlines()
        found += ['link left: ' + line for line in links if ': lo:' not in line]
        with open('/proc/self/mountinfo') as f:
            found += ['mount left: ' + line for line in f if self.directory in line]
        for sub in ('work/runs', 'work/containers'):
            path = os.path.join(self.directory, sub)
            for root, dirs, _ in os.walk(path):
                found += ['directory left: ' + os.path.join(root, d) for d in dirs if d.startswith('0x')]
        if os.path.isdir(self.runtime_dir):
            found += ['runtime directory left: ' + d for d in os.listdir(self.runtime_dir) if d.startswith('0x')]
        return found

    def command(self, name, flags):
        """name None: without --id."""
        return [os.path.join(BIN, self.program), '--server', self.service.url, *(['--id', name] if name else []),
                '--password-file', self.service.credentials(), '--work-dir', self.work_dir,
                '--runtime-dir', self.runtime_dir, '--network-prefix', 'lab_' + (name or 'any'),
                '--checkin-frequency-seconds', '1', '--insecure-registry', self.registry.address,
                '--cgroup', 'full' if has_cgroup2() else 'partial', '--verbose'] + list(flags)

    def worker(self, *flags, name='w1'):
        self.workers.append(Worker(self, name, flags))
        return self.workers[-1]

    def run(self, command, *dependencies, **more):
        more.setdefault('image', self.image)
        more.setdefault('memory', '256m')  # several at once on a small machine
        if len(os.sched_getaffinity(0)) < ENOUGH and 'cpus' not in more:
            more.setdefault('resources', {'cpus': 0})
        return self.client.run(command, dependencies, **more)

    def wait(self, uuid, states, timeout=120):
        return self.client.wait(uuid, states, timeout=timeout)

    def cat(self, uuid, path='stdout'):
        return self.client.cat(uuid, path).decode()

    def until(self, condition, what, timeout=120):
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError('waited in vain for ' + what)
            time.sleep(0.05)


def check(condition, *what):
    if not condition:
        raise AssertionError(' '.join(str(w) for w in what))


def equal(got, wanted):
    check(got == wanted, 'got', repr(got), 'instead of', repr(wanted))
