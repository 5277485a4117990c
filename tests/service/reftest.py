"""For end-to-end tests in Python: a reference service of their own, started, watched and stopped.

    import reftest
    with reftest.Service(checkin_hold=1) as service:
        worker = start_the_worker(service.url, service.credentials())
        uuid = service.client.run('echo hi', image=…)
        service.client.wait(uuid, 'ready')
        service.assert_clean()

Leaving the block stops the service; without another error it also asserts that there was no violation.
Keyword arguments become flags of server.py (`worker_timeout=5` -> --worker-timeout 5).
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(HERE, '..', 'fixtures'))
import certs  # noqa: E402
from client import Client  # noqa: E402

START_SECONDS = 60
STOP_SECONDS = 60
SHOWN = 20


class Service:
    def __init__(self, directory=None, tls=False, user='codalab', password='codalab', root=True,
                 keep=False, **flags):
        self.scratch = None if directory else tempfile.mkdtemp(prefix='service.')
        self.directory = directory or self.scratch
        self.user, self.password, self.root, self.keep = user, password, root, keep
        self.flags, self.process, self.port, self.ca = flags, None, 0, None
        os.makedirs(self.directory, exist_ok=True)
        self.data = os.path.join(self.directory, 'data')
        if tls:
            self.ca, flags['tls_cert'], flags['tls_key'] = certs.make(os.path.join(self.directory, 'tls'))

    @property
    def url(self):
        host = self.flags.get('public_host') or self.flags.get('host', '127.0.0.1')
        return '%s://%s:%d' % ('https' if self.ca else 'http', '[%s]' % host if ':' in host else host,
                               self.port)

    @property
    def ws_url(self):
        """What --ws-server may say: the separate port if there is one."""
        with open(os.path.join(self.data, 'ports.json')) as source:
            ports = json.load(source)
        base = self.url.replace('http', 'ws', 1).rsplit(':', 1)[0]
        return '%s:%d/ws' % (base, ports.get('ws', ports['main']))

    @property
    def client(self):
        return Client(self.url, self.flags.get('admin_token'), self.ca)

    def start(self):
        """Start it; after a kill or stop, again with the same data and port."""
        port_file = os.path.join(self.directory, 'port')
        if os.path.exists(port_file):
            os.unlink(port_file)
        command = [sys.executable, os.path.join(HERE, 'server.py'), '--data', self.data,
                   '--port', str(self.port), '--port-file', port_file,
                   '--user', '%s:%s%s' % (self.user, self.password, ':root' if self.root else '')]
        for name, value in self.flags.items():
            command += ['--' + name.replace('_', '-'), str(value)]
        with open(os.path.join(self.directory, 'service.log'), 'ab') as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while not os.path.exists(port_file):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError('the service does not start:\n' + self.log())
            time.sleep(0.02)
        with open(port_file) as source:
            self.port = int(source.read())
        return self

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
                raise

    def kill(self):
        """kill -9: what is on disk must do."""
        self.process.kill()
        self.process.wait()

    def log(self):
        with open(os.path.join(self.directory, 'service.log'), errors='replace') as source:
            return source.read()

    def credentials(self):
        """Path of a password file for the worker: two lines, mode 0600."""
        path = os.path.join(self.directory, 'password')
        with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), 'w') as out:
            out.write('%s\n%s\n' % (self.user, self.password))
        return path

    def violations(self):
        """Read from disk: also of a service that is down."""
        with open(os.path.join(self.data, 'violations.jsonl')) as source:
            return [json.loads(line) for line in source]

    def assert_clean(self):
        found = self.violations()
        if found:
            raise AssertionError('the worker broke the protocol %d times:\n' % len(found) + '\n'.join(
                '  %(row)s %(what)s (%(where)s)' % v for v in found[:SHOWN]))

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, *_):
        try:
            self.stop()
            if kind is None:
                self.assert_clean()
                if 'Traceback' in self.log():
                    raise AssertionError('the service itself failed:\n' + self.log())
        finally:
            if kind is not None:
                sys.stderr.write('--- log of the service ---\n' + self.log()[-4000:])
            if self.scratch and not self.keep:
                shutil.rmtree(self.scratch, ignore_errors=True)
