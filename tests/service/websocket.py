"""The ws-server's end of the wake-up channel (RFC 6455, §4), on a connection the HTTP server gives up.

The client sends the text frame `a` after connecting and at least every 10 s; the server sends text
frames with the worker id, pings every `ping_seconds` and wants the pong within as much again.
Control frames are answered; fragments are not part of this protocol.
"""
import base64
import hashlib
import re
import select
import socket
import ssl
import struct
import threading
import time
import urllib.parse

import strict

GUID = b'258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
FRAME_MAX = 65536
SEND_SECONDS = 10
TICK = 0.5


class Bad(Exception):
    """The client broke the protocol: args are the row and the text."""


def accept_key(key):
    return base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()


def handshake_errors(headers, target):
    """target is the raw request target; the worker id stands in it unescaped."""
    found = []
    if (headers.get('Upgrade') or '').lower() != 'websocket' or \
            'upgrade' not in (headers.get('Connection') or '').lower():
        found.append(('B180', 'no websocket upgrade'))
    if headers.get('Sec-WebSocket-Version') != '13':
        found.append(('B180', 'Sec-WebSocket-Version %r' % headers.get('Sec-WebSocket-Version')))
    try:
        good = len(base64.b64decode(headers.get('Sec-WebSocket-Key') or '', validate=True)) == 16
    except ValueError:
        good = False
    if not good:
        found.append(('B180', 'Sec-WebSocket-Key %r' % headers.get('Sec-WebSocket-Key')))
    for name in ('Authorization', 'Sec-WebSocket-Protocol'):
        if headers.get(name) is not None:
            found.append(('B180', 'the websocket request carries ' + name))
    worker = worker_id(target)
    if worker is None or '?' in worker:
        found.append(('B180', 'no worker id in %r' % target))
    elif urllib.parse.unquote(worker) != worker:
        found.append(('B180', 'the worker id is percent-encoded: %r' % worker))
    return found


def worker_id(target):
    found = re.match(r'.*/worker/(.+)\Z', target)
    return found[1] if found else None


class WebSocket:
    """One open connection; run() owns it and returns when it has ended. Threads: send_text, close any."""

    def __init__(self, connection, ping_seconds, idle_seconds):
        self.connection = connection
        self.ping_seconds, self.idle_seconds = ping_seconds, idle_seconds
        self._wake, self._waker = socket.socketpair()
        self._queue, self._lock, self._buffer = [], threading.Lock(), b''
        self._closing = False
        now = time.monotonic()
        self.heard, self.asked, self.last_ping = now, None, now

    def send_text(self, text):
        self._post(frame(TEXT, text.encode()))

    def close(self):
        self._post(None)

    def _post(self, data):
        with self._lock:
            self._queue.append(data)
        try:
            self._waker.send(b'x')
        except OSError:
            pass  # run() has ended

    def run(self):
        """Serve until the end; raises Bad when the client is at fault."""
        try:
            while self._flush() and self._receive():
                while self._frame():
                    pass
                self._check_times()
        except (OSError, EOFError):
            pass
        except Bad:
            self._try_send(frame(CLOSE, struct.pack('>H', 1002)))
            raise
        finally:
            self._wake.close()
            self._waker.close()

    def _flush(self):
        """Send what is queued; False when closing was asked for."""
        with self._lock:
            queue, self._queue = self._queue, []
        for data in queue:
            self._try_send(frame(CLOSE, struct.pack('>H', 1000)) if data is None else data)
            if data is None:
                return False
        return not self._closing

    def _try_send(self, data):
        try:
            self.connection.settimeout(SEND_SECONDS)
            self.connection.sendall(data)
        except OSError:
            self._closing = True

    def _receive(self):
        """Wait a moment for bytes or something to send. True to go on."""
        pending = getattr(self.connection, 'pending', lambda: 0)()
        ready = [self.connection] if pending else \
            select.select([self.connection, self._wake], [], [], TICK)[0]
        if self._wake in ready:
            self._wake.recv(4096)
        if self.connection in ready:
            self.connection.setblocking(False)
            try:
                data = self.connection.recv(FRAME_MAX)
            except (BlockingIOError, ssl.SSLWantReadError):
                return True
            if not data:
                raise EOFError
            self._buffer += data
        return True

    def _check_times(self):
        now = time.monotonic()
        if self.asked and now - self.asked > self.ping_seconds:
            raise Bad('B183', 'no pong within %d s' % self.ping_seconds)
        if now - self.heard > self.idle_seconds:
            raise Bad('B181', 'no frame `a` for %d s' % self.idle_seconds)
        if not self.asked and now - self.last_ping > self.ping_seconds:
            self.last_ping = self.asked = now
            self._try_send(frame(PING, b'cworker'))

    def _frame(self):
        """Handle one whole frame of the buffer; False if there is none."""
        if len(self._buffer) < 2:
            return False
        first, second = self._buffer[0], self._buffer[1]
        size, start = second & 127, 2
        if not first & 0x80 or first & 0x70:
            raise Bad('B181', 'a fragmented or extended frame')
        if not second & 0x80:
            raise Bad('B181', 'an unmasked frame')
        if size == 127:
            raise Bad('B181', 'a frame that is too long')
        if size == 126:
            size, start = int.from_bytes(self._buffer[2:4], 'big'), 4
        if len(self._buffer) < start + 4 + size:
            return False
        mask = self._buffer[start:start + 4]
        payload = self._buffer[start + 4:start + 4 + size]
        self._buffer = self._buffer[start + 4 + size:]
        self._act(first & 15, bytes(b ^ mask[i % 4] for i, b in enumerate(payload)))
        return True

    def _act(self, opcode, payload):
        if opcode == TEXT:
            if payload != b'a':
                raise Bad('B181', 'text frame %.20r' % payload)
            self.heard = time.monotonic()
        elif opcode == PING:
            self._try_send(frame(PONG, payload))
        elif opcode == PONG:
            self.asked = None
        elif opcode == CLOSE:
            self._try_send(frame(CLOSE, payload[:2]))
            raise EOFError
        else:
            raise Bad('B181', 'a frame with opcode %d' % opcode)


def frame(opcode, payload):
    size = len(payload)
    length = bytes([size]) if size < 126 else b'\x7e' + struct.pack('>H', size)
    return bytes([0x80 | opcode]) + length + payload


def serve(handler, workers, config):
    """Take over the connection of an HTTP request for /ws/worker/{id}."""
    errors = handshake_errors(handler.headers, handler.target)
    if errors:
        raise strict.Violation(errors)
    name = worker_id(handler.target)
    handler.close_connection = handler.begun = True
    handler.status = 101
    handler.note()
    opened = WebSocket(handler.connection, config.ws_ping, config.ws_idle)
    with workers.store.lock:
        old, workers.websockets[name] = workers.websockets.get(name), opened
    if old:
        old.close()
    try:
        handler.wfile.write(
            b'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
            b'Sec-WebSocket-Accept: ' + accept_key(handler.headers['Sec-WebSocket-Key']).encode() + b'\r\n\r\n')
        opened.run()
    except Bad as why:
        raise strict.Violation([why.args]) from None
    finally:
        with workers.store.lock:
            if workers.websockets.get(name) is opened:
                del workers.websockets[name]
