"""A worker of straw: speaks the protocol by hand, rightly by default and wrongly on request.

It runs nothing. The self-test of the service uses it, and so may a test that wants to look at the
service from the worker's side.
"""
import base64
import gzip
import http.client
import io
import json
import os
import socket
import ssl
import struct
import tarfile
import time
import urllib.parse

import strict

GIB = 1 << 30
CALL_SECONDS = 60
MESSAGE_SECONDS = 60


def tar_gz(files, names=None):
    """A results archive: path -> bytes, with ./ members and the top entry."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w:gz') as tar:
        top = tarfile.TarInfo('./')
        top.type, top.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(top)
        for path, data in files.items():
            member = tarfile.TarInfo('./' + path)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


class FakeWorker:
    def __init__(self, url, user='codalab', password='codalab', worker_id='straw(1)', ca=None):
        self.parts = urllib.parse.urlsplit(url)
        self.user, self.password, self.id = user, password, worker_id
        self.segment = urllib.parse.quote(worker_id, safe='')
        self.context = ssl.create_default_context(cafile=ca) if ca else None
        self.token = None
        self.fields = {
            'tag': None, 'group_name': None, 'cpus': 4, 'gpus': 0, 'memory_bytes': 8 * GIB,
            'free_disk_bytes': 50 * GIB, 'dependencies': [], 'hostname': 'straw', 'runs': [],
            'shared_file_system': False, 'tag_exclusive': False, 'exit_after_num_runs': 999999999,
            'is_terminating': False, 'preemptible': False}

    # ---- requests ----

    def connect(self):
        if self.context:
            return http.client.HTTPSConnection(self.parts.netloc, timeout=CALL_SECONDS,
                                               context=self.context)
        return http.client.HTTPConnection(self.parts.netloc, timeout=CALL_SECONDS)

    def request(self, method, path, body=None, headers=None, chunked=False):
        """headers: replace the usual ones; a value of None leaves one out. (status, headers, body)"""
        send = {'X-Requested-With': 'XMLHttpRequest', 'Accept-Encoding': 'identity'}
        if self.token:
            send['Authorization'] = 'Bearer ' + self.token
        send.update(headers or {})
        connection = self.connect()
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in send.items():
                if value is not None:
                    connection.putheader(name, value)
            if chunked:
                connection.putheader('Transfer-Encoding', 'chunked')
            elif body is not None:
                connection.putheader('Content-Length', str(len(body)))
            connection.endheaders()
            for piece in ([body] if body and not chunked else []):
                connection.send(piece)
            if chunked:
                for at in range(0, len(body), 16384):
                    piece = body[at:at + 16384]
                    connection.send(b'%X\r\n%s\r\n' % (len(piece), piece))
                connection.send(b'0\r\n\r\n')
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def post(self, path, thing, headers=None, raw=None):
        send = {'Content-Type': strict.JSON_TYPE, **(headers or {})}
        return self.request('POST', path, raw if raw is not None else json.dumps(thing).encode(), send)

    # ---- calls ----

    def login(self, headers=None, form=None):
        body = form if form is not None else urllib.parse.urlencode(
            {'grant_type': 'password', 'username': self.user, 'password': self.password})
        send = {'Authorization': strict.CLIENT, 'Content-Type': strict.FORM_TYPE, **(headers or {})}
        status, _, data = self.request('POST', '/rest/oauth2/token', body.encode(), send)
        answer = json.loads(data) if status in (200, 401) and data.startswith(b'{') else data
        if status == 200:
            self.token = answer['access_token']
        return status, answer

    def checkin(self, runs=(), headers=None, raw=None, **fields):
        """The messages, or (status, text) if it was refused."""
        body = {**self.fields, 'runs': list(runs), **fields}
        status, _, data = self.post('/rest/workers/%s/checkin' % self.segment, body, headers, raw)
        return json.loads(data) if status == 200 else (status, data.decode())

    def await_message(self, kind, runs=()):
        """Check in until a message of this type comes."""
        deadline = time.monotonic() + MESSAGE_SECONDS
        while time.monotonic() < deadline:
            messages = self.checkin(runs)
            if isinstance(messages, tuple):
                raise AssertionError('check-in refused: %s %s' % messages)
            for message in messages:
                if message and message['type'] == kind:
                    return message
        raise AssertionError('no message %s within %d s' % (kind, MESSAGE_SECONDS))

    def start_bundle(self, uuid, **fields):
        body = {'hostname': 'straw', 'start_time': int(time.time()), **fields}
        status, _, data = self.post('/rest/workers/%s/start_bundle/%s' % (self.segment, uuid), body)
        return json.loads(data) if status == 200 else (status, data.decode())

    def record(self, uuid, state, /, **fields):
        """A run record of the given state."""
        began = 1700000000.0
        done = {'preparing': 0, 'running': 1, 'finalizing': 4}.get(state, 0)
        stats = {}
        for n, stage in enumerate(strict.STAGES):
            end = began + n + 1 if n < done else None
            stats[stage] = {'start': began + n if n <= done else None, 'end': end,
                            'elapsed': 1.0 if end else None}
        image = None if state == 'preparing' else 'demo@sha256:' + 'ab' * 32
        return {'uuid': uuid, 'run_status': '', 'bundle_start_time': began, 'container_time_total': 1.5,
                'container_time_user': 0.5, 'container_time_system': 0.25, 'docker_image': image,
                'state': state, 'remote': self.id, 'exitcode': 0 if state == 'finalizing' else None,
                'failure_message': None, 'bundle_profile_stats': stats, 'cpu_usage': 0.5,
                'memory_usage': 0.25, 'disk_utilization': 4096, **fields}

    def reply(self, number, thing):
        return self.post('/rest/workers/%s/reply/%s' % (self.segment, number), thing)[0]

    def reply_data(self, number, data, query='?header_message=%7B%7D', zipped=True, chunked=True):
        body = gzip.compress(data) if zipped else data
        path = '/rest/workers/%s/reply_data/%s%s' % (self.segment, number, query)
        return self.request('POST', path, body, chunked=chunked)[0]

    def upload(self, uuid, archive, query='filename=bundle.tar.gz&finalize_on_success=0&store=',
               headers=None, chunked=True):
        path = '/rest/bundles/%s/contents/blob/?%s' % (uuid, query)
        status, _, text = self.request('PUT', path, archive, headers, chunked)
        return status, text.decode()

    def get(self, path, **headers):
        return self.request('GET', path, headers={'Accept-Encoding': 'gzip', **headers})

    # ---- a whole run ----

    def take_run(self):
        """Wait for a `run` message and accept it; returns the message."""
        message = self.await_message('run')
        assert self.start_bundle(message['bundle']['uuid']) is True
        return message

    def finish(self, uuid, files=None, **end):
        """From running to the acknowledgement."""
        self.checkin([self.record(uuid, 'running')])
        if files is not None:
            assert self.upload(uuid, tar_gz(files))[0] == 200
        self.await_message('mark_finalized', [self.record(uuid, 'finalizing', **end)])


class FakeWebSocket:
    """The worker's end of the wake-up channel, frame by frame."""

    def __init__(self, worker, path=None, headers=()):
        port = worker.parts.port
        self.socket = socket.create_connection((worker.parts.hostname, port), timeout=CALL_SECONDS)
        if worker.context:
            self.socket = worker.context.wrap_socket(self.socket, server_hostname=worker.parts.hostname)
        lines = ['GET %s HTTP/1.1' % (path or '/ws/worker/' + worker.id), 'Host: x', 'Upgrade: websocket',
                 'Connection: Upgrade', 'Sec-WebSocket-Version: 13',
                 'Sec-WebSocket-Key: ' + base64.b64encode(os.urandom(16)).decode(), *headers]
        self.socket.sendall(('\r\n'.join(lines) + '\r\n\r\n').encode())
        self.file = self.socket.makefile('rb')
        self.status = int(self.file.readline().split()[1])
        while self.file.readline() not in (b'\r\n', b''):
            pass

    def send(self, payload=b'a', opcode=1, masked=True):
        key = os.urandom(4)
        head = bytes([0x80 | opcode, (0x80 if masked else 0) | len(payload)])
        body = key + bytes(b ^ key[i % 4] for i, b in enumerate(payload)) if masked else payload
        self.socket.sendall(head + body)

    def receive(self):
        """(opcode, payload), or None at the end."""
        head = self.file.read(2)
        if len(head) < 2:
            return None
        size = head[1] & 127
        if size == 126:
            size = struct.unpack('>H', self.file.read(2))[0]
        return head[0] & 15, self.file.read(size)

    def close(self):
        self.file.close()
        self.socket.close()
