"""One HTTP connection: reads requests, refuses what is not allowed, answers, and goes wrong to order.

What a request means is said in endpoints.py; here are framing, headers, faults and the log.
"""
import gzip
import http.server
import json
import os
import socket
import ssl
import struct
import sys
import time
import traceback
import urllib.parse

import strict
from body import Body
from contents import Problem, accepts_gzip
from oauth import Denied

TCP_ESTABLISHED = 1  # linux/tcp_states.h

IDLE_SECONDS = 310
HANDSHAKE_SECONDS = 30
DRAIN_MAX = 64 * 1024 * 1024
DRAIN_SECONDS = 5
LINGER_SECONDS = 2
PIECE = 65536


def has_hung_up(connection):
    """Has the other end closed it, whatever is still to be read?"""
    try:
        return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != TCP_ESTABLISHED
    except OSError:
        return False


class Spoiled(ConnectionError):
    """A fault kept the true answer from the client."""


class Cut(Exception):
    """Enough of a body was sent; the connection is to be cut (or the body ended, if framed)."""


class ChunkedOut:
    """Writes a body chunk by chunk, up to a limit a fault may set."""

    def __init__(self, handler, limit):
        self.handler, self.left = handler, limit

    def write(self, data):
        short = self.left is not None and len(data) >= self.left
        if self.left is not None:
            data = data[:self.left]
            self.left -= len(data)
        if data:
            self.handler.wfile.write(b'%X\r\n%s\r\n' % (len(data), bytes(data)))
        if short:
            raise Cut
        return len(data)

    def flush(self):
        """Every write went out already."""


class Source:
    """The connection's buffered input. The base class takes an end inside the header lines for the end
    of the header, and would serve what a dying client left half written."""

    def __init__(self, file):
        self.file, self.in_header = file, False
        self.read, self.read1, self.close = file.read, file.read1, file.close

    def readline(self, limit=-1):
        line = self.file.readline(limit)
        if self.in_header and not line.endswith(b'\n') and len(line) != limit:
            raise ConnectionError('the client closed the connection inside its header')
        return line


class Handler(http.server.BaseHTTPRequestHandler):
    disable_nagle_algorithm = True  # else the body waits 40 ms for the acknowledgement of the head
    protocol_version = 'HTTP/1.1'
    server_version = 'reference-service'
    timeout = IDLE_SECONDS
    rbufsize = 65536

    def setup(self):
        accepted = self.request
        if self.server.tls:
            self.request.settimeout(HANDSHAKE_SECONDS)
            self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        super().setup()
        self.rfile = Source(self.rfile)
        self.app = self.server.app
        self.server.track(accepted, self.connection)

    def finish(self):
        try:
            super().finish()
            self.connection.close()
        except OSError:
            pass

    def log_message(self, *_):
        pass

    def send_error(self, code, message=None, explain=None):
        """What the base class could not even parse."""
        self.app.store.violation('B001', 'no HTTP request: %s %s' % (code, message), self.requestline)
        super().send_error(code, message, explain)

    # ---- a request ----

    def parse_request(self):
        if not self.raw_requestline.endswith(b'\n'):
            raise ConnectionError('the client closed the connection inside its request line')
        self.rfile.in_header = True
        try:
            return super().parse_request()
        finally:
            self.rfile.in_header = False

    def dispatch(self):
        self.started, self.status, self.endpoint, self.fault = time.time(), None, None, {}
        self.on_fault = self.ordered = self.line = None
        self.target = self.requestline.split()[1]
        self.body, self.begun, self.closing = None, False, False
        parts = urllib.parse.urlsplit(self.target)
        self.path_only, self.query_text = parts.path, parts.query
        try:
            self.body = Body(self.rfile, self.headers)
            self.query = urllib.parse.parse_qsl(parts.query, keep_blank_values=True)
            self.app.endpoints.route(self)
        except strict.Violation as why:
            for row, text in why.rows:
                self.app.store.violation(row, text, '%s %s' % (self.command, self.path_only))
            self.explain(why.status, 'Strict: %s' % why)
        except Denied as why:
            self.explain(401, why.text)
        except Problem as why:
            self.explain(why.status, why.text)
        except (ConnectionError, TimeoutError, ssl.SSLError):
            self.close_connection = True
        except Exception as why:  # the answer of the true server to its own mistakes
            traceback.print_exc(file=sys.stderr)
            self.close_connection = True
            self.explain(500, 'Unexpected Internal Error (%s). The administrators have been notified.' % why)
        finally:
            self.note()
            self._finish_body()
            if self.line:
                self.line.update(status=self.status, sent=self.body.taken if self.body else None)
                self.app.store.log_request(self.line)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = do_OPTIONS = dispatch

    def note(self):
        """Remember the request before its answer is heard: who has heard it finds the request counted."""
        if self.line or self.endpoint == 'admin':
            return
        self.line = {
            'time': round(self.started, 3), 'took': round(time.time() - self.started, 3),
            'endpoint': self.endpoint, 'method': self.command, 'target': self.target,
            'status': self.status, 'sent': None, 'range': self.headers.get('Range'),
            'fault': {k: v for k, v in (self.ordered or {}).items() if k not in ('left', 'skip')} or None}
        self.app.store.requests.append(self.line)

    def explain(self, status, text):
        if not self.begun:
            try:
                self.answer(status, text.encode(), 'text/plain; charset=utf-8')
            except OSError:
                self.close_connection = True

    def _finish_body(self):
        """Let a refused client see the answer: take what it still sends, then close."""
        if not self.body or self.body.ended:
            return
        self.close_connection = True
        try:
            self.connection.settimeout(DRAIN_SECONDS)
            deadline = time.monotonic() + DRAIN_SECONDS
            while not self.body.ended and self.body.taken < DRAIN_MAX and time.monotonic() < deadline:
                self.body.read(PIECE)
        except (OSError, strict.Violation):
            pass

    # ---- faults ----

    def meet_faults(self, endpoint, on_fault=None):
        """Take the fault ordered for this endpoint, if any, and do what comes before the work.
        on_fault(status) is called before a false status is answered."""
        self.endpoint, self.on_fault = endpoint, on_fault
        self.fault = self.ordered = self.app.faults.take(endpoint, self.target)
        if 'rate' in self.fault:
            self.body.rate = self.fault['rate']
        self.server.unhurried.add(self.connection)
        if 'delay' in self.fault:
            time.sleep(self.fault['delay'])
        if 'hold' in self.fault:
            self.app.faults.hold()
        self.server.unhurried.discard(self.connection)
        if self.fault.get('after') or 'early' in self.fault:
            return
        if 'reset' in self.fault:
            self.reset()
        if 'status' in self.fault:
            while self.body.read(PIECE):
                pass
            self._answer_fault()

    def answer_early(self):
        """Answer while the client still sends, then leave its bytes unread for a while."""
        self.body.read(self.fault['early'])
        linger = self.fault.get('linger', LINGER_SECONDS)
        self.close_connection = True
        try:
            self._answer_fault()
        finally:
            try:
                self.connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the client has gone by itself
            time.sleep(linger)

    def _answer_fault(self):
        fault, self.fault = self.fault, {}
        self.closing = True  # nobody shall send his next request into a connection that is about to end
        if self.on_fault:
            self.on_fault(fault['status'])
        self.answer(fault['status'], fault.get('body', 'fault').encode(),
                    fault.get('content_type', 'text/plain; charset=utf-8'), fault.get('headers'))
        raise Spoiled('status %d to order' % fault['status'])

    def reset(self):
        """Cut the connection with a reset."""
        self.note()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        self.close_connection = True
        os.close(self.connection.detach())
        raise Spoiled('reset to order')

    # ---- answers ----

    def answer(self, status, body=b'', kind='text/plain; charset=utf-8', headers=None):
        if self.fault.get('after'):
            if 'reset' in self.fault:
                self.reset()
            if 'status' in self.fault:
                self._answer_fault()
        limit = self.fault.get('truncate')
        self._head(status, kind, {**(headers or {}), 'Content-Length': str(len(body))})
        self.wfile.write(body if limit is None else body[:limit])
        if limit is not None and limit < len(body):
            self.reset()

    def answer_json(self, thing, status=200):
        data, headers, kind = json.dumps(thing).encode(), {}, 'application/json'
        how = self.app.store.settings.get('json', 'plain')
        if how == 'charset':
            kind = 'application/json; charset=utf-8'
        elif how == 'gzip' and accepts_gzip(self.headers):
            data, headers = gzip.compress(data), {'Content-Encoding': 'gzip'}
        self.answer(status, data, kind, headers)

    def answer_stream(self, headers, write):
        """A chunked answer, written by write(out)."""
        kind = headers.pop('Content-Type')
        self._head(200, kind, {**headers, 'Transfer-Encoding': 'chunked'})
        try:
            write(ChunkedOut(self, self.fault.get('truncate')))
        except Cut:
            if not self.fault.get('framed'):
                self.reset()
        self.wfile.write(b'0\r\n\r\n')

    def _head(self, status, kind, headers):
        self.begun, self.status = True, status
        self.note()
        self.send_response(status)
        self.send_header('Content-Type', self.fault.get('content_type', kind))
        for name, value in headers.items():
            self.send_header(name, value)
        if self.closing or not self.body or not self.body.ended:
            self.send_header('Connection', 'close')
        self.end_headers()

    def gone(self):
        """Has the client closed this connection? Asked while its request is being held."""
        return self.connection.fileno() < 0 or has_hung_up(self.connection)
