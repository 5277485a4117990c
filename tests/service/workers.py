"""Workers as the server sees them: rows, check-ins, the sockets that carry messages and replies.

A worker row lives as long as its check-ins are heard; its socket id is new with every new row. At
most one check-in of a worker is in flight. A message is handed to the check-in that listens, one a
check-in; `deliver` waits for one to listen. Reads and netcat get a socket id of their own, and their
reply is awaited on it.
"""
import tempfile
import threading
import time

import strict

POLL = 0.25
PING_AGAIN = 1.0


class Live:
    """What is known of a worker row in memory only."""

    def __init__(self, lock):
        self.free = threading.Condition(lock)   # a check-in has begun to listen
        self.full = threading.Condition(lock)   # it has got its message
        self.told, self.told_shared = {}, None  # uuid -> its record in the last check-in, exactly
        self.closed = None       # tells whether the connection of the check-in in flight is gone
        self.listening = False   # a check-in waits for a message
        self.slot = None         # the message it is to take along


class Socket:
    """A reply somebody waits for."""

    def __init__(self, worker_key, message):
        self.worker_key, self.message = worker_key, message
        self.opened = time.time()
        self.done = threading.Event()
        self.answered = self.abandoned = False
        self.result = None       # ('json', object) or ('data', open temporary file)


class Answer:
    """What a check-in is answered; undo() if it could not be sent."""

    def __init__(self, messages, undo):
        self.messages, self.undo = messages, undo


class Workers:
    def __init__(self, store, bundles, config):
        self.store, self.bundles, self.config = store, bundles, config
        self.live, self.sockets, self.websockets = {}, {}, {}
        self.stopping = False

    # ---- rows ----

    def find(self, user, worker_id):
        for row in self.store.workers.values():
            if row['user_id'] == user['id'] and row['id'] == worker_id:
                return row
        return None

    def _row(self, user, worker_id):
        row = self.find(user, worker_id)
        if not row:
            number = self.store.next('worker')
            row = {'key': str(number), 'id': worker_id, 'user_id': user['id'],
                   'socket_id': self.store.next('socket')}
        return row

    def live_of(self, key):
        if key not in self.live:
            self.live[key] = Live(self.store.lock)
        return self.live[key]

    def remove(self, key):
        """A dead worker: its row, sockets and claims go; its bundles are judged by the manager."""
        for number in [n for n, s in self.sockets.items() if s.worker_key == key]:
            self.sockets.pop(number).abandoned = True
        for bundle in self.store.bundles.values():
            if bundle['worker'] == key:
                bundle['worker'] = None
                self.store.save_bundle(bundle)
        self.live.pop(key, None)
        self.store.remove_worker(key)

    # ---- check-in ----

    def enter(self, user, worker_id, closed):
        """Note a check-in in flight; a second one is refused unless the first one's client is gone."""
        with self.store.lock:
            row = self.find(user, worker_id)
            live = self.live_of(row['key'] if row else 'new %s %s' % (user['id'], worker_id))
            if live.closed and not live.closed():
                strict.refuse('B040', 'two check-ins of worker %s in flight' % worker_id)
            live.closed = closed

    def leave(self, user, worker_id, closed):
        with self.store.lock:
            row = self.find(user, worker_id)
            for key in (row['key'] if row else None, 'new %s %s' % (user['id'], worker_id)):
                live = self.live.get(key)
                if live and live.closed is closed:
                    live.closed = None
            self.live.pop('new %s %s' % (user['id'], worker_id), None)

    def checkin(self, user, worker_id, body, closed):
        with self.store.lock:
            row = self._row(user, worker_id)
            live, (told, old) = self.live_of(row['key']), self._told(row, body)
            errors = strict.checkin_errors(body, worker_id, old)
            for record in body['runs'] if not errors else []:
                errors += self.bundles.report_errors(worker_id, row['key'], record)
            if errors:
                raise strict.Violation(errors)
            row.update(checkin={k: v for k, v in body.items() if k != 'runs'},
                       runs=[r['uuid'] for r in body['runs']], last_checkin=time.time())
            self.store.save_worker(row)
            live.closed, live.told, live.told_shared = closed, told, body['shared_file_system']
            messages = []
            for record in body['runs']:
                kill = self.bundles.apply(row, user, record, record['uuid'] in old)
                if kill:
                    messages.append({'type': 'kill', 'uuid': record['uuid'], 'kill_message': kill})
            message = self._listen(live, closed)
            messages.append(message)
            row['last_checkin'] = time.time()
            staged = [r['uuid'] for r in body['runs'] if r['state'] == 'staged']
            live.closed = None
            return Answer(messages, self._retire(worker_id, staged, message))

    def _told(self, row, body):
        """The records of a check-in, exactly, and the uuids of those that the last one had told, too."""
        live = self.live_of(row['key'])
        if type(body) is not dict or type(body.get('runs')) is not list:
            return {}, set()
        told = {r['uuid']: strict.exact(r) for r in body['runs']
                if type(r) is dict and type(r.get('uuid')) is str}
        if live.told_shared is not body.get('shared_file_system'):
            return told, set()
        return told, {uuid for uuid, record in told.items() if live.told.get(uuid) == record}

    def _listen(self, live, closed):
        """Wait for one message; wants the lock, which waiting lets go."""
        deadline = time.monotonic() + self.config.checkin_hold
        live.listening, live.slot = True, None
        live.free.notify()
        while live.slot is None and not self.stopping and time.monotonic() < deadline:
            live.full.wait(min(POLL, max(0.001, deadline - time.monotonic())))
            if live.slot is None and closed():
                break
        live.listening = False
        message, live.slot = live.slot, None
        return message

    def _retire(self, worker_id, staged, message):
        """After this answer the worker may not mention these runs again. Returns how to take it back."""
        rows = dict.fromkeys(staged, 'B050')
        if message and message['type'] == 'mark_finalized':
            rows[message['uuid']] = 'B049'
        for uuid, row in rows.items():
            if uuid in self.store.bundles:
                self.store.bundles[uuid]['retired'][worker_id] = row
                self.store.save_bundle(self.store.bundles[uuid])

        def undo():
            with self.store.lock:
                for uuid in rows:
                    bundle = self.store.bundles.get(uuid)
                    if bundle and bundle['retired'].pop(worker_id, None):
                        if rows[uuid] == 'B050' and bundle['state'] == 'staged':
                            bundle['started_on'].append(worker_id)
                        self.store.save_bundle(bundle)
        return undo

    def crashed(self, worker_id):
        """A test killed this worker: what it had not yet written down cannot be held against it."""
        with self.store.lock:
            for bundle in self.store.bundles.values():
                if bundle['retired'].pop(worker_id, None):
                    bundle['started_on'].append(worker_id)
                bundle['time_seen'] = 0
                self.store.save_bundle(bundle)
            for socket in self.sockets.values():
                row = self.store.workers.get(socket.worker_key)
                if row and row['id'] == worker_id:
                    socket.abandoned = True

    # ---- messages ----

    def deliver(self, key, message, seconds):
        """Put a message into the worker's next listening check-in; False if none took it in time."""
        deadline = time.monotonic() + seconds
        next_ping = 0
        while True:
            with self.store.lock:
                row = self.store.workers.get(key)
                if not row:
                    return False
                live = self.live_of(key)
                if live.listening and live.slot is None:
                    live.slot = message
                    live.full.notify_all()
                    return True
            now = time.monotonic()
            if now >= deadline or self.stopping:
                return False
            if now >= next_ping:
                self.ping(row['id'])
                next_ping = now + PING_AGAIN
            with self.store.lock:
                if live.slot is not None or not live.listening:
                    live.free.wait(min(POLL, max(0.001, deadline - now)))

    def ping(self, worker_id):
        websocket = self.websockets.get(worker_id)
        if websocket:
            websocket.send_text(worker_id)

    # ---- replies ----

    def ask(self, key, message, gone=None):
        """Send a read or netcat to a worker and wait for the reply: ('json', …), ('data', file) or
        None if the worker could not be reached. gone() tells that nobody waits for it any more."""
        with self.store.lock:
            number = self.store.next('socket')
            socket = self.sockets[number] = Socket(key, message)
        message['socket_id'] = number
        try:
            if not self.deliver(key, message, self.config.reply_timeout):
                return None
            socket.opened = time.time()
            if socket.done.wait(self.config.reply_timeout):
                return socket.result
            if not socket.abandoned and not self.stopping and not (gone and gone()):
                self.store.violation('B170', 'no reply to %s within %d s' % (
                    describe(message), self.config.reply_timeout))
            return None
        finally:
            socket.abandoned = True

    def socket_for(self, user, worker_id, number):
        """The socket a reply is for; None means 403."""
        with self.store.lock:
            row = self.find(user, worker_id)
            socket = self.sockets.get(number)
            if not row or not socket or socket.worker_key != row['key']:
                return None
            if socket.answered:
                strict.refuse('B170', 'a second reply to ' + describe(socket.message))
            return None if socket.abandoned else socket

    def reply(self, socket, kind, value):
        """Hand over a reply."""
        with self.store.lock:
            if socket.answered:
                strict.refuse('B170', 'a second reply to ' + describe(socket.message))
            socket.answered = True
            socket.result = (kind, value)
            row = self.store.workers.get(socket.worker_key)
        socket.done.set()
        if row:
            self.ping(row['id'])

    def temporary(self):
        return tempfile.TemporaryFile(dir=self.store.path('incoming'))


def describe(message):
    args = message.get('read_args', {})
    return '%s %s of %s' % (message['type'], args.get('type', message.get('port', '')),
                            message.get('uuid'))
