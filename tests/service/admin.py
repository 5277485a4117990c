"""The side door for tests and people: POST /admin/{verb} with a JSON object, answered with JSON.

No part of the protocol. Open to loopback, and to whoever knows --admin-token (X-Admin-Token). The verbs
are the do_* methods below; arguments are the keys of the object.
"""
import base64
import hmac
import json
import os
import secrets
import urllib.parse

import archive
import bundles as states
from contents import Problem
from store import remove_tree

BODY_MAX = 64 * 1024 * 1024
SETTINGS = {'json', 'checkin_answer', 'gzip_members', 'token_type', 'max_time', 'max_disk',
            'redirect_status', 'make_dirs'}
PIECE = 65536


class Admin:
    def __init__(self, app):
        self.app, self.store = app, app.store

    def serve(self, h):
        token = self.app.config.admin_token
        known = token and hmac.compare_digest(h.headers.get('X-Admin-Token') or '', token)
        if not known and h.client_address[0] not in ('127.0.0.1', '::1', '::ffff:127.0.0.1'):
            raise Problem(403, 'the admin door opens to loopback or with the admin token')
        verb = h.path_only[len('/admin/'):]
        if verb == 'upload':
            return h.answer_json(self._upload(dict(h.query), h.body))
        if verb == 'contents':
            return self._contents(h, **dict(h.query))
        action = getattr(self, 'do_' + verb, None)
        if h.command != 'POST' or not action:
            raise Problem(404, 'no admin verb %r' % verb)
        try:
            args = json.loads(h.body.read_all(BODY_MAX) or b'{}')
            return h.answer(200, json.dumps(action(**args)).encode(), 'application/json')
        except (TypeError, ValueError, KeyError) as why:
            raise Problem(400, '%s: %s: %s' % (verb, type(why).__name__, why)) from why

    # ---- bodies that are no JSON ----

    def _upload(self, query, body):
        """A dataset: query name, kind (file|directory), blob, owner; body the file or a tar.gz."""
        with self.store.lock:
            bundle = self.app.bundles.create_dataset(
                self._owner(query.get('owner')), query.get('name', 'data'), query.get('blob') == '1')
            bundle['public'] = query.get('public') == '1'
        incoming = self.store.path('incoming', secrets.token_hex(8))
        try:
            if query.get('kind', 'directory') == 'directory':
                archive.Unpacker(incoming).run(body)
            else:
                with open(incoming, 'wb') as out:
                    for piece in iter(lambda: body.read(PIECE), b''):
                        out.write(piece)
            os.rename(incoming, self.store.content(bundle['uuid']))
        except archive.ArchiveError as why:
            raise Problem(400, str(why)) from None
        finally:
            remove_tree(incoming)
        with self.store.lock:
            bundle['metadata']['data_size'] = archive.disk_use(self.store.content(bundle['uuid']))
            self.app.bundles.set_state(bundle, 'ready')
        return bundle['uuid']

    def _contents(self, h, uuid, path=''):
        path = urllib.parse.unquote(path)
        found = self.app.contents.blob(None, uuid, path, {}, redirect=False)
        h.answer_stream(found[1], found[2])

    # ---- users and settings ----

    def _owner(self, name):
        users = self.store.users
        if name is None:
            return next(iter(users.values()))
        if name not in users:
            raise Problem(404, 'no user %r' % name)
        return users[name]

    def do_add_user(self, name, password, root=False, **more):
        return self.app.oauth.add_user(name, password, root, **more)

    def do_set_user(self, name, **fields):
        """time_quota, disk_quota (null: none), time_used, disk_used, verified, password."""
        with self.store.lock:
            self._owner(name).update(fields)
            self.store.save('users')
            return self._owner(name)

    def do_users(self):
        return [{k: v for k, v in u.items() if k != 'password'} for u in self.store.users.values()]

    def do_set(self, **settings):
        """json: plain|charset|gzip; checkin_answer: array|lone|empty|no_null; gzip_members: n;
        token_type; redirect_status: 303|302; make_dirs: make bundle directories for shared file systems; max_time, max_disk: server maximum of resources without a request."""
        unknown = set(settings) - SETTINGS
        if unknown:
            raise ValueError('no setting ' + ', '.join(unknown))
        with self.store.lock:
            self.store.settings.update(settings)
            self.store.save('settings')
            return self.store.settings

    # ---- bundles ----

    def do_run(self, command, dependencies=(), metadata=None, resources=None, owner=None):
        """dependencies: [child_path, parent_uuid, parent_path] triples; resources overrides what the
        `run` message will say."""
        with self.store.lock:
            bundle = self.app.bundles.create_run(self._owner(owner), command, dependencies, metadata)
            if resources:
                bundle['resources'] = resources
                self.store.save_bundle(bundle)
            return bundle['uuid']

    def do_info(self, uuid):
        with self.store.lock:
            bundle = dict(self.app.contents.bundle(uuid))
            row = self.store.workers.get(bundle['worker'])
            bundle['worker_id'] = row['id'] if row else None
            bundle['location_on_disk'] = self.store.content(uuid)
            return bundle

    def do_bundles(self):
        with self.store.lock:
            return [{'uuid': b['uuid'], 'type': b['bundle_type'], 'state': b['state'],
                     'name': b['metadata'].get('name'), 'run_status': b['metadata'].get('run_status'),
                     'command': b['command']} for b in self.store.bundles.values()]

    def do_rm(self, uuid, force=False):
        with self.store.lock:
            bundle = self.app.contents.bundle(uuid)
            if bundle['state'] in states.ACTIVE and not force:
                raise Problem(403, 'Cannot delete an active bundle: ' + uuid)
            self.store.remove_bundle(uuid)

    def do_kill(self, uuid):
        with self.store.lock:
            bundle = self.app.contents.bundle(uuid)
            if bundle['state'] in states.FINAL:
                raise Problem(403, 'Cannot kill a bundle that is ' + bundle['state'])
            if bundle['worker'] is None:
                bundle['metadata']['failure_message'] = 'Kill requested'
                self.app.bundles.set_state(bundle, 'killed')
                return None
            bundle['metadata']['actions'].append('kill')
        return self._send(bundle, {'type': 'kill', 'uuid': uuid})

    def do_write(self, uuid, subpath, string):
        bundle = self.app.contents.bundle(uuid)
        with self.store.lock:
            bundle['metadata']['actions'].append('write %s' % subpath)
        return self._send(bundle, {'type': 'write', 'uuid': uuid, 'subpath': subpath, 'string': string})

    def _send(self, bundle, message):
        if not bundle['worker'] or not self.app.workers.deliver(
                bundle['worker'], message, self.app.config.reply_timeout):
            raise Problem(500, 'Unable to reach worker.')

    def do_read(self, uuid, path, args):
        """A read as the user causes it: {"json": target_info} or {"data": base64}."""
        kind, value = self.app.reads.read(uuid, path, args)
        return {kind: base64.b64encode(value).decode() if kind == 'data' else value}

    def do_netcat(self, uuid, port, message):
        return {'data': base64.b64encode(self.app.reads.netcat(uuid, port, message)).decode()}

    # ---- workers ----

    def do_workers(self):
        with self.store.lock:
            return [dict(row, websocket=row['id'] in self.app.workers.websockets)
                    for row in self.store.workers.values()]

    def _worker(self, worker):
        for row in self.store.workers.values():
            if row['id'] == worker:
                return row
        raise Problem(404, 'no worker %r' % worker)

    def do_send(self, worker, message, seconds=60):
        """Put any message into a worker's check-in: unknown types, unknown uuids, a second `run`."""
        with self.store.lock:
            row = self._worker(worker)
        return self.app.workers.deliver(row['key'], message, seconds)

    def do_ask(self, worker, message):
        """Send a read or netcat made by hand and return the reply as it came:
        {"json": …}, {"data": base64} or null."""
        with self.store.lock:
            row = self._worker(worker)
        answer = self.app.workers.ask(row['key'], message)
        if answer is None or answer[0] == 'json':
            return answer and {'json': answer[1]}
        with answer[1]:
            return {'data': base64.b64encode(answer[1].read()).decode()}

    def do_run_message(self, uuid):
        """The `run` message of a bundle, to be sent once more with `send`."""
        with self.store.lock:
            bundle = self.app.contents.bundle(uuid)
            return self.app.manager.run_message(bundle, self.store.workers.get(bundle['worker']))

    def do_ping(self, worker):
        return self.app.workers.ping(worker)

    def do_worker_crashed(self, worker):
        """A test killed this worker with SIGKILL: see Workers.crashed."""
        self.app.settle()
        self.app.workers.crashed(worker)

    def do_forget_worker(self, worker):
        """As if it had been silent for too long."""
        with self.store.lock:
            self.app.workers.remove(self._worker(worker)['key'])

    # ---- faults and findings ----

    def do_fault(self, **fault):
        self.app.faults.add(fault)

    def do_faults(self):
        return self.app.faults.list()

    def do_held(self):
        """How many requests wait in a `hold`."""
        return self.app.faults.held

    def do_clear_faults(self):
        self.app.faults.clear()

    def do_drop_tokens(self):
        self.app.oauth.drop_all()

    def do_go_away(self, seconds):
        """Stop listening, cut every connection, come back after so many seconds."""
        self.app.go_away(float(seconds))

    def do_violations(self):
        return self.store.violations()

    def do_forgive(self):
        return self.store.forgive()

    def do_requests(self, endpoint=None, match=''):
        """The latest requests, oldest first."""
        return [r for r in list(self.store.requests)
                if endpoint in (None, r['endpoint']) and match in r['target']]
