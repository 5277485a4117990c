#!/usr/bin/env python3
"""Results up and dependencies down by cworkerd, against their slowest stage alone: read, compress, network, decompress, write.

The stages: `tar` to nowhere, igzip (the same library at the same level), bytes over loopback to a process that throws them
away, igzip -d, `tar x`. A relay in front of the reference service takes the big bodies itself, so that Python is not what is
measured. The worker's own times are what it reports (time_uploading_results) and what the relay saw (a download).
"""
import argparse
import http.client
import http.server
import io
import os
import socket
import statistics
import subprocess
import sys
import tarfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(TOP, 'tests/e2e')]
import worker_lab  # noqa: E402

worker_lab.enter()
import image  # noqa: E402
from bench_lab import bench_lab  # noqa: E402

PIECE = 1 << 20
LAST_CHUNK = b'\r\n0\r\n\r\n'


class Relay(http.server.BaseHTTPRequestHandler):
    """Everything goes to the service, but uploads (thrown away) and the blobs that are served from a file."""
    protocol_version = 'HTTP/1.1'
    target, blobs, times = None, {}, {}
    rbufsize = 0  # uploads are read from the socket, as they come

    def log_message(self, *_):
        pass

    def answer(self, status, headers, body):
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ('connection', 'content-length', 'transfer-encoding', 'server', 'date'):
                self.send_header(name, value)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def swallow(self):
        buffer, tail = bytearray(PIECE), b''
        while not tail.endswith(LAST_CHUNK):
            n = self.connection.recv_into(buffer)
            if not n:
                return
            tail = (tail + buffer[max(0, n - len(LAST_CHUNK)):n])[-len(LAST_CHUNK):]
        self.answer(200, [], b'')

    def serve_blob(self, path):
        Relay.times[path] = time.time()
        self.send_response(200)
        self.send_header('Content-Type', 'application/gzip')
        self.send_header('Content-Length', str(os.path.getsize(path)))
        self.end_headers()
        with open(path, 'rb') as source:
            self.connection.sendfile(source)

    def forward(self):
        for uuid, path in self.blobs.items():
            if self.command == 'GET' and '/%s/contents/blob/' % uuid in self.path:
                return self.serve_blob(path)
        if self.command == 'PUT':
            return self.swallow()
        body = self.rfile.read(int(self.headers.get('Content-Length', 0)))
        connection = http.client.HTTPConnection(*self.target, timeout=300)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        return self.answer(answer.status, answer.getheaders(), answer.read())

    do_GET = do_POST = do_PUT = forward


def relay(port):
    Relay.target = ('127.0.0.1', port)
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Relay)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return 'http://127.0.0.1:%d' % server.server_address[1]


def fill(directory, mib):
    """Many small files and some large, half of it noise."""
    noise = image.filler_bytes(8 << 20, 3)
    for i in range(mib * 4):
        os.makedirs('%s/%d' % (directory, i // 200), exist_ok=True)
        with open('%s/%d/f%d' % (directory, i // 200, i), 'wb') as out:
            out.write(noise[(i * 7919) % (4 << 20):][:128 << 10])
    for i in range(mib // 32):
        with open('%s/big%d' % (directory, i), 'wb') as out:
            for _ in range(2):
                out.write(noise)


def timed(command):
    begin = time.monotonic()
    subprocess.run(command, shell=True, check=True)
    return time.monotonic() - begin


def loopback(path):
    listener = socket.create_server(('127.0.0.1', 0))

    def drain():
        buffer = bytearray(PIECE)
        with listener.accept()[0] as peer:
            while peer.recv_into(buffer):
                pass

    thread = threading.Thread(target=drain)
    thread.start()
    begin = time.monotonic()
    with socket.create_connection(listener.getsockname()) as out, open(path, 'rb') as source:
        out.sendfile(source)
    thread.join()
    listener.close()
    return time.monotonic() - begin


def stages(directory, scratch):
    tar, packed = scratch + '/x.tar', scratch + '/x.tar.gz'
    found = {'read (tar)': timed('tar cf - -C %s . | cat > /dev/null' % directory)}
    timed('tar cf %s -C %s .' % (tar, directory))
    found['compress (igzip -1)'] = timed('igzip -1 -c %s > /dev/null' % tar)
    timed('igzip -1 -c %s > %s' % (tar, packed))
    found['network (loopback)'] = loopback(packed)
    found['decompress (igzip -d)'] = timed('igzip -d -c %s > /dev/null' % packed)
    os.mkdir(scratch + '/out')
    found['write (tar x)'] = timed('tar xf %s -C %s/out' % (tar, scratch))
    subprocess.run(['rm', '-rf', scratch + '/out', tar], check=True)
    return found, packed


def measure(lab, directory, packed):
    """Seconds of one upload and of one download."""
    tree = lab.client.upload(any_directory(), kind='directory')
    Relay.blobs = {tree: packed}
    up = lab.run('while [ ! -e go ]; do sleep 0.05; done', memory='64m')
    lab.wait(up, 'running')
    where = os.path.join(lab.work_dir, 'runs', up)
    subprocess.run(['cp', '-r', directory + '/.', where], check=True)
    with open(where + '/go', 'w'):
        pass
    uploading = lab.wait(up, 'ready', 300)['metadata']['time_uploading_results']
    down = lab.run('true', ('tree', tree, ''), memory='64m')
    lab.wait(down, ('ready', 'failed'), 300)
    record = os.path.join(lab.work_dir, 'dependencies-state', tree + '.json')  # written when all is in its place
    return uploading, os.stat(record).st_mtime - Relay.times[packed]


def any_directory():
    """What the service knows of: the relay sends another."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w:gz') as tar:
        info = tarfile.TarInfo('./')
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
    return out.getvalue()


def main():
    parser = argparse.ArgumentParser(description='transfer speed against the slowest stage')
    parser.add_argument('--runs', type=int, default=3)
    parser.add_argument('--mib', type=int, default=256, help='about so much data')
    args = parser.parse_args()
    with bench_lab(manager_interval=0.1) as lab:
        scratch = os.path.join(lab.directory, 'scratch')
        os.mkdir(scratch)
        os.mkdir(scratch + '/data')
        fill(scratch + '/data', args.mib)
        url = relay(lab.service.port)
        lab.worker('--server', url, '--ws-server', lab.service.ws_url)
        ups, downs, alone = [], [], {}
        for _ in range(args.runs):
            found, packed = stages(scratch + '/data', scratch)
            for name, seconds in found.items():
                alone.setdefault(name, []).append(seconds)
            up, down = measure(lab, scratch + '/data', packed)
            ups.append(up)
            downs.append(down)
        size = int(subprocess.check_output(['du', '-sm', scratch + '/data']).split()[0])
        report(size, os.path.getsize(packed) >> 20, {k: statistics.median(v) for k, v in alone.items()},
               statistics.median(ups), statistics.median(downs))
        lab.service.client.forgive()


def report(size, packed, alone, up, down):
    print('\n### transfers: %d MiB of files, %d MiB packed\n' % (size, packed))
    print('| | s (median) | MiB/s | x slowest stage |\n|---|---|---|---|')
    for name, seconds in alone.items():
        print('| %s alone | %.2f | %.0f | |' % (name, seconds, size / seconds))
    names = list(alone)
    for what, seconds, of in (('upload of results', up, names[:3]), ('download of a dependency', down, names[2:])):
        print('| **%s** | %.2f | %.0f | %.2f |' % (what, seconds, size / seconds, seconds / max(alone[n] for n in of)))


if __name__ == '__main__':
    main()
