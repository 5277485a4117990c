"""What the requests of a worker mean: the table of §2.5, checked from the outside in.

Order of the checks: the path, X-Requested-With, an ordered fault, authorisation, the body's type, its
JSON, its fields, and what the service knows of the bundle.
"""
import json
import re
import urllib.parse

import reads
import strict
import websocket
from contents import VERSION, Problem
from handler import Spoiled

UUID = r'(0x[0-9a-f]{32})'
WORKER_ROUTE = re.compile(r'/rest/workers/([^/]*)/([a-z_]+)(?:/([^/]*))?\Z')
INFO_ROUTE = re.compile(r'/rest/bundles/%s/contents/info/(.*)\Z' % UUID)
BLOB_ROUTE = re.compile(r'/rest/bundles/%s/contents/blob/(.*)\Z' % UUID)
BUNDLE_ROUTE = re.compile(r'/rest/bundles/%s\Z' % UUID)
FORM_MAX = 64 * 1024
WORKER_ID_MAX = 127


class Endpoints:
    def __init__(self, app):
        self.app = app
        self.worker_calls = {'checkin': self.checkin, 'start_bundle': self.start_bundle,
                             'reply': self.reply, 'reply_data': self.reply_data}

    def route(self, h):
        if h.server.role == 'storage':
            return self.storage(h)
        if h.path_only.startswith('/admin/'):
            h.endpoint = 'admin'
            return self.app.admin.serve(h)
        if h.path_only.startswith('/ws/') or h.server.role == 'ws':
            h.meet_faults('websocket')
            return websocket.serve(h, self.app.workers, self.app.config)
        return self.rest(h)

    def rest(self, h):
        # an absolute URL in the request line is as good as its path (§2.6)
        if not h.path_only.startswith('/rest/') or '//' in h.path_only.split('/contents/')[0]:
            strict.refuse('B001', 'no such path: %s' % h.path_only, 404)
        if h.headers.get('X-Requested-With') != 'XMLHttpRequest':
            strict.refuse('B002', 'X-Requested-With is %r' % h.headers.get('X-Requested-With'))
        if h.path_only == '/rest/oauth2/token':
            return self.token(h)
        found = WORKER_ROUTE.match(h.path_only)
        if found or h.path_only.startswith('/rest/workers/'):
            return self.worker(h, found)
        for pattern, methods in ((INFO_ROUTE, {'GET': self.info}), (BUNDLE_ROUTE, {'GET': self.bundle}),
                                 (BLOB_ROUTE, {'GET': self.blob, 'PUT': self.upload})):
            found = pattern.match(h.path_only)
            if found:
                return self.call(h, methods, *found.groups())
        return strict.refuse('B001', 'no such path: %s' % h.path_only, 404)

    @staticmethod
    def call(h, methods, *args):
        if h.command not in methods:
            strict.refuse('B001', '%s is not allowed on %s' % (h.command, h.path_only), 405)
        return methods[h.command](h, *args)

    # ---- token ----

    def token(self, h):
        if h.command != 'POST' or h.query_text:
            strict.refuse('B003', '%s %s' % (h.command, h.target), 405)
        h.meet_faults('token')
        status, answer = self.app.oauth.token(h.headers, h.body.read_all(FORM_MAX))
        h.answer_json(answer, status)

    # ---- workers ----

    def worker(self, h, found):
        if not found or not strict.SEGMENT.match(found[1]):
            strict.refuse('B019', 'the worker id is not escaped: %s' % h.path_only)
        worker_id = urllib.parse.unquote(found[1], errors='strict')
        if len(worker_id) > WORKER_ID_MAX or '/' in worker_id:
            strict.refuse('B019', 'no worker id: %r' % worker_id)
        if found[2] not in self.worker_calls:
            strict.refuse('B001', 'no such path: %s' % h.path_only, 404)
        if h.query_text and found[2] != 'reply_data':
            strict.refuse('B001', 'an unknown query: %s' % h.target)
        self.call(h, {'POST': self.worker_calls[found[2]]}, worker_id, found[3])

    def json_body(self, h, row):
        if h.headers.get('Content-Type') != strict.JSON_TYPE:
            strict.refuse('B012', 'Content-Type is %r' % h.headers.get('Content-Type'))
        data = h.body.read_all(strict.BODY_MAX)
        try:
            return strict.parse_json(data)
        except ValueError as why:
            return strict.refuse(row, 'Invalid JSON: %s' % why)

    def checkin(self, h, worker_id, rest):
        if rest is not None:
            strict.refuse('B001', 'no such path: %s' % h.path_only, 404)
        user = self.app.oauth.user(h.headers)
        gone = h.gone  # one object: it stands for this very check-in
        self.app.workers.enter(user, worker_id, gone)
        try:
            # who was answered may come again at once
            h.meet_faults('checkin', lambda _: self.app.workers.leave(user, worker_id, gone))
            if gone():  # held for so long that it tells of what was once
                raise ConnectionError('the client has gone')
            body = self.json_body(h, 'B021')
            answer = self.app.workers.checkin(user, worker_id, body, gone)
        finally:
            self.app.workers.leave(user, worker_id, gone)
        try:
            self._answer_checkin(h, answer.messages)
        except (OSError, Spoiled):
            answer.undo()
            raise

    def _answer_checkin(self, h, messages):
        """An array, or what older servers answered, if a test asked for it (B044)."""
        form = self.app.store.settings.get('checkin_answer', 'array')
        if form == 'lone' and len(messages) == 1 and messages[0]:
            return h.answer_json(messages[0])
        if form == 'empty' and messages == [None]:
            return h.answer(200, b'', 'application/json')
        if form == 'no_null':
            messages = [m for m in messages if m]
        return h.answer_json(messages)

    def start_bundle(self, h, worker_id, uuid):
        user = self.app.oauth.user(h.headers)
        h.meet_faults('start_bundle')
        body = self.json_body(h, 'B055')
        if not strict.UUID.match(uuid or ''):
            strict.refuse('B055', 'start_bundle of %r' % uuid)
        errors = strict.start_errors(body)
        if errors:
            raise strict.Violation(errors)
        with self.app.store.lock:
            bundle = self.app.contents.bundle(uuid)
            row = self.app.workers.find(user, worker_id)
            if not self.app.bundles.may_run(user, bundle):
                raise Problem(403, 'User does not have permission to run bundle.')
            ours = bool(row) and self.app.bundles.start(bundle, row, body)
        h.answer_json(ours)

    # ---- replies ----

    def reply(self, h, worker_id, number):
        user = self.app.oauth.user(h.headers)
        h.meet_faults('reply')
        body = self.json_body(h, 'B165')
        socket = self._socket(user, worker_id, number)
        errors = strict.reply_errors(body, socket.message)
        with self.app.store.lock:
            bundle = self.app.store.bundles.get(socket.message['uuid'])
        if not errors and bundle:
            errors = reads.info_errors(socket.message, bundle, body)
        self._hand_over(socket, 'json', body, errors)
        h.answer(200)

    def reply_data(self, h, worker_id, number):
        user = self.app.oauth.user(h.headers)
        h.meet_faults('reply_data')
        if h.headers.get('Content-Length') is None and not h.body.chunked:
            strict.refuse('B165', 'reply_data without Content-Length and not chunked')
        socket = self._socket(user, worker_id, number)
        data = self.app.workers.temporary()
        for piece in iter(lambda: h.body.read(65536), b''):
            data.write(piece)
        with self.app.store.lock:
            bundle = self.app.store.bundles.get(socket.message['uuid'], {'dependencies': []})
        errors = self._header_errors(h.query) or reads.data_errors(socket.message, bundle, data)
        data.seek(0)
        self._hand_over(socket, 'data', data, errors)
        h.answer(200)

    @staticmethod
    def _header_errors(query):
        fields = dict(query)
        if 'header_message' not in fields:
            return [('B165', 'Missing header message.')]
        try:
            header = json.loads(fields['header_message'])
        except ValueError:
            return [('B165', 'Header message should be in JSON format.')]
        if header != {} or len(query) != 1:
            return [('B165', 'the header message is %r, query %s' % (header, sorted(fields)))]
        return []

    def _socket(self, user, worker_id, number):
        if not re.match(r'[0-9]+\Z', number or ''):
            strict.refuse('B165', 'no socket id: %r' % number)
        socket = self.app.workers.socket_for(user, worker_id, int(number))
        if not socket:
            raise Problem(403, 'Not your socket ID!')
        return socket

    def _hand_over(self, socket, kind, value, errors):
        if errors:
            refused = {'error_code': 500, 'error_message': 'Strict: %s' % errors}
            self.app.workers.reply(socket, 'json', refused)
            raise strict.Violation(errors)
        self.app.workers.reply(socket, kind, value)

    # ---- bundles ----

    def bundle(self, h, uuid):
        self.app.oauth.user(h.headers)
        h.meet_faults('bundle')
        with self.app.store.lock:
            bundle = self.app.contents.bundle(uuid)
            attributes = self.app.bundles.wire(bundle)
        h.answer_json({'data': {'type': 'bundles', 'id': uuid, 'attributes': attributes}})

    @staticmethod
    def _path(raw):
        if not strict.PATH.match(raw):
            strict.refuse('B020', 'the path is not escaped: %s' % raw)
        return urllib.parse.unquote(raw, errors='surrogateescape')

    def info(self, h, uuid, raw):
        user = self.app.oauth.user(h.headers)
        path = self._path(raw)
        if h.query_text:
            strict.refuse('B001', 'an unknown query: %s' % h.target)
        if self.app.contents.bundle(uuid)['state'] in ('preparing', 'running'):
            return self.live_info(h, user, uuid, path)
        h.meet_faults('info')
        return h.answer_json(self.app.contents.info(user, uuid, path))

    def live_info(self, h, user, uuid, path):
        """Of a bundle that runs: its worker is asked, with a `read` message."""
        h.endpoint = 'live_info'
        h.meet_faults('live_info')
        bundle = self.app.contents.bundle(uuid)
        if not self.app.bundles.may_read(user, bundle):
            raise Problem(403, 'User %s does not have sufficient permissions on bundle %s (have none, '
                               'need read)' % (user['name'], uuid))
        if bundle['state'] == 'preparing':
            raise Problem(404, "Bundle %s hasn't started running yet, files not available" % uuid)
        try:
            _, info = self.app.reads.read(uuid, path, {'type': 'get_target_info', 'depth': 0}, h.gone)
        except Problem as why:
            raise Problem(404, why.text) from None
        h.answer_json({'data': info, 'meta': {'version': VERSION}})

    def blob(self, h, uuid, raw):
        user = self.app.oauth.user(h.headers)
        path = self._path(raw)
        if h.query != [('support_redirect', '1')]:
            strict.refuse('B127', 'the blob query is %r' % h.query_text)
        h.meet_faults('blob')
        found = self.app.contents.blob(user, uuid, path, h.headers, redirect=True)
        if found[0] == 'redirect':
            status = self.app.store.settings.get('redirect_status', 303)
            h.answer(status, b'', headers={'Location': found[1]})
        else:
            h.answer_stream(found[1], found[2])

    def storage(self, h):
        if h.headers.get('Authorization') is not None:
            strict.refuse('B011', 'Authorization was sent to the redirect target', 403)
        if h.command != 'GET':
            strict.refuse('B127', '%s to the blob storage' % h.command, 405)
        h.meet_faults('storage')
        found = self.app.contents.stored(h.path_only, dict(h.query), h.headers)
        h.answer_stream(found[1], found[2])

    def upload(self, h, uuid, raw):
        user = self.app.oauth.user(h.headers)
        if raw:
            strict.refuse('B113', 'upload to a path below the bundle: %s' % raw)
        bundle = self.app.contents.check_upload(user, uuid, h.query, h.headers)
        h.meet_faults('upload', lambda status: self._note_upload_fault(bundle, status))
        if 'early' in h.fault:
            h.answer_early()
        self.app.contents.upload(bundle, h.body)
        h.answer(200)

    def _note_upload_fault(self, bundle, status):
        """What the true server would have left in the bundle had it answered so by itself."""
        if status == 400:
            with self.app.store.lock:
                self.app.bundles.fail(bundle, 'Upload failed: fault')
        elif status >= 500:
            self.app.contents.note_5xx(bundle, 'fault')
