#!/usr/bin/env python3
"""The reference bundle service: what a CodaLab worker talks to, on one machine, without forgiveness.

It speaks the worker's side of the protocol strictly, runs the bundle manager, serves the websocket
under /ws/ of the same port, the blob storage on a second port, and the tests' side door under /admin/.
See README.md.
"""
import argparse
import http.server
import json
import os
import signal
import socket
import ssl
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import admin  # noqa: E402
import bundles  # noqa: E402
import contents  # noqa: E402
import endpoints  # noqa: E402
import faults  # noqa: E402
import handler  # noqa: E402
import manager  # noqa: E402
import oauth  # noqa: E402
import reads  # noqa: E402
import store  # noqa: E402
import workers  # noqa: E402

BACKLOG = 128
SETTLE_SECONDS = 30


class Listener(http.server.ThreadingHTTPServer):
    """One port; a thread a connection."""
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = BACKLOG

    def __init__(self, app, role, host, port, tls):
        self.app, self.role, self.tls = app, role, tls
        self._connections, self._lock = {}, threading.Lock()
        self.unhurried = set()  # connections whose request waits for the test
        self.address_family = socket.AF_INET6 if ':' in host else socket.AF_INET
        super().__init__((host, port), handler.Handler)
        self.thread = threading.Thread(target=self.serve_forever, args=(0.1,), daemon=True)
        self.thread.start()

    def server_bind(self):
        # no look-up of the host's name, which the base class would do
        socket.socket.setsockopt(self.socket, socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.server_address[:2]

    def handle_error(self, *_):
        """A connection that broke is no news."""

    def process_request(self, request, client_address):
        self.track(request, request)  # at once: who comes later finds it here
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        super().shutdown_request(request)
        with self._lock:
            self._connections.pop(request, None)

    def track(self, request, connection):
        """A connection is the socket that was accepted, or what TLS has made of it."""
        with self._lock:
            self._connections[request] = connection

    def connections(self):
        with self._lock:
            return list(self._connections.values())

    def is_behind(self):
        """Is something still to be done that a client sent before it hung up?"""
        return any(handler.has_hung_up(c) for c in self.connections() if c not in self.unhurried)

    def stop(self):
        self.shutdown()
        self.server_close()
        for connection in self.connections():
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class App:
    """All parts, wired."""

    def __init__(self, config):
        self.config = config
        self.store = store.Store(config.data)
        self.oauth = oauth.OAuth(self.store, config.token_expires_in)
        self.bundles = bundles.Bundles(self.store, self.oauth)
        self.contents = contents.Contents(self.store, self.bundles, self.oauth)
        self.workers = workers.Workers(self.store, self.bundles, config)
        self.reads = reads.Reads(self.store, self.workers, self.contents, config)
        self.manager = manager.Manager(self.store, self.bundles, self.workers, self.oauth, config)
        self.faults = faults.Faults()
        self.endpoints = endpoints.Endpoints(self)
        self.admin = admin.Admin(self)
        self.tls = None
        if config.tls_cert:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(config.tls_cert, config.tls_key)
        self._listeners = {}
        self.ports = {'main': config.port, 'storage': config.storage_port}
        if config.ws_port is not None:
            self.ports['ws'] = config.ws_port

    def start(self):
        for user in self.config.user:
            name, password, *root = user.split(':')
            self.oauth.add_user(name, password, root == ['root'])
        self._listen()
        self.manager.start()

    def _listen(self):
        for role, port in self.ports.items():
            listener = Listener(self, role, self.config.host, port, self.tls)
            self._listeners[role], self.ports[role] = listener, listener.server_port
        self.contents.storage_url = self.url('storage')
        with open(self.store.path('ports.json'), 'w') as out:
            json.dump(self.ports, out)

    def url(self, role='main'):
        host = self.config.public_host or self.config.host
        return '%s://%s:%d' % ('https' if self.tls else 'http',
                               '[%s]' % host if ':' in host else host, self.ports[role])

    def go_away(self, seconds):
        threading.Thread(target=self._stay_away, args=(seconds,), daemon=True).start()

    def _stay_away(self, seconds):
        threading.Event().wait(0.2)  # lets the admin answer through
        self._close()
        threading.Event().wait(seconds)
        self._listen()

    def settle(self):
        """Until everything is done that was sent by clients that are gone."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while any(one.is_behind() for one in self._listeners.values()) and time.monotonic() < deadline:
            time.sleep(0.02)

    def _close(self):
        for listener in self._listeners.values():
            listener.stop()

    def stop(self):
        self.workers.stopping = True
        with self.store.lock:
            self.store.changed.notify_all()
        self.manager.stop()
        self._close()


def parse(args):
    parser = argparse.ArgumentParser(description='reference bundle service for tests')
    parser.add_argument('--data', required=True, help='directory for everything it remembers')
    parser.add_argument('--host', default='127.0.0.1')
    parser.add_argument('--public-host', help='host name in the URLs it hands out (--host)')
    parser.add_argument('--port', type=int, default=0)
    parser.add_argument('--storage-port', type=int, default=0, help='the blob storage')
    parser.add_argument('--ws-port', type=int, help='a separate port for websockets too')
    parser.add_argument('--port-file', help='write the main port there once listening')
    parser.add_argument('--tls-cert')
    parser.add_argument('--tls-key')
    parser.add_argument('--admin-token')
    parser.add_argument('--user', action='append', default=[], help='NAME:PASSWORD[:root]')
    for name, default, words in (
            ('token-expires-in', 3600, 'life of an access token'),
            ('checkin-hold', 5.0, 'a check-in waits so long for a message'),
            ('worker-timeout', 60.0, 'a silent worker is dead, a silent bundle offline'),
            ('manager-interval', 0.5, 'pause of the bundle manager'),
            ('delivery', 1.0, 'time to take a run or mark_finalized'),
            ('starting-timeout', 300.0, 'a bundle that stays in starting is staged again'),
            ('reply-timeout', 60.0, 'delivery of, and reply to, reads, netcat, kill, write'),
            ('ws-ping', 20.0, 'websocket ping interval, and time for the pong'),
            ('ws-idle', 30.0, 'a websocket without frame `a` for so long is closed'),
            ('stuck-days', 60, 'life of a bundle that does not end')):
        parser.add_argument('--' + name, type=type(default), default=default, help=words)
    return parser.parse_args(args)


def main(args=None):
    config = parse(args)
    config.user = config.user or ['codalab:codalab:root']
    app = App(config)
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    app.start()
    print('listening %s' % app.url(), flush=True)
    if config.port_file:
        with open(config.port_file + '.new', 'w') as out:
            out.write('%d\n' % app.ports['main'])
        os.replace(config.port_file + '.new', config.port_file)
    done.wait()
    app.stop()
    return 0


if __name__ == '__main__':
    sys.exit(main())
