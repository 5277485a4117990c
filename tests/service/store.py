"""Everything the service remembers, as JSON files and content trees in one directory.

    DIR/users.json tokens.json counters.json settings.json
    DIR/bundles/<uuid>.json     one file a bundle
    DIR/workers/<n>.json        one file a worker row
    DIR/contents/<uuid>         a file or a directory
    DIR/violations.jsonl        what a worker did against the protocol; empty when all is well
    DIR/requests.jsonl          one line a request, for people

Every document is replaced by rename, so the service may be killed at any instant. One lock guards
all of it; `changed` is notified whenever something may have become true that somebody waits for.
Threads: any. Hold `lock` while reading or changing documents, never across network traffic.
"""
import collections
import json
import os
import shutil
import threading
import time

REQUESTS_KEPT = 20000


class Store:
    def __init__(self, directory):
        self.directory = directory
        for name in ('bundles', 'workers', 'contents', 'incoming'):
            os.makedirs(os.path.join(directory, name), exist_ok=True)
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self._file_lock = threading.Lock()
        self.users = self._load('users.json', {})
        self.tokens = self._load('tokens.json', {})
        self.counters = self._load('counters.json', {})
        self.settings = self._load('settings.json', {})
        self.bundles = self._load_all('bundles')
        self.workers = self._load_all('workers')
        self.requests = collections.deque(maxlen=REQUESTS_KEPT)
        self._violations = open(self.path('violations.jsonl'), 'a')
        self._requests_file = open(self.path('requests.jsonl'), 'a')
        for name in os.listdir(self.path('incoming')):
            remove_tree(self.path('incoming', name))

    def path(self, *parts):
        return os.path.join(self.directory, *parts)

    def content(self, uuid):
        return self.path('contents', uuid)

    def save(self, what):
        """what: 'users', 'tokens', 'counters' or 'settings'."""
        self._replace(what + '.json', getattr(self, what))

    def save_bundle(self, bundle):
        self._replace('bundles/%s.json' % bundle['uuid'], bundle)
        self.changed.notify_all()

    def remove_bundle(self, uuid):
        del self.bundles[uuid]
        os.unlink(self.path('bundles', uuid + '.json'))
        remove_tree(self.content(uuid))
        self.changed.notify_all()

    def save_worker(self, worker):
        self.workers[worker['key']] = worker
        self._replace('workers/%s.json' % worker['key'], worker)
        self.changed.notify_all()

    def remove_worker(self, key):
        del self.workers[key]
        os.unlink(self.path('workers', key + '.json'))
        self.changed.notify_all()

    def next(self, counter):
        with self.lock:
            self.counters[counter] = self.counters.get(counter, 0) + 1
            self.save('counters')
            return self.counters[counter]

    def violation(self, row, text, where=''):
        line = {'time': round(time.time(), 3), 'row': row, 'what': text, 'where': where}
        with self._file_lock:
            self._violations.write(json.dumps(line) + '\n')
            self._violations.flush()

    def violations(self):
        with self._file_lock, open(self.path('violations.jsonl')) as source:
            return [json.loads(line) for line in source]

    def forgive(self):
        """Empty the list of violations; returns what was in it."""
        found = self.violations()
        with self._file_lock:
            self._violations.truncate(0)
        return found

    def log_request(self, line):
        with self._file_lock:
            self._requests_file.write(json.dumps(line) + '\n')
            self._requests_file.flush()

    def _load(self, name, default):
        try:
            with open(self.path(name)) as source:
                return json.load(source)
        except FileNotFoundError:
            return default

    def _load_all(self, kind):
        names = [n for n in os.listdir(self.path(kind)) if n.endswith('.json')]
        return {n[:-len('.json')]: self._load(os.path.join(kind, n), None) for n in names}

    def _replace(self, name, document):
        path = self.path(name)
        with open(path + '.new', 'w') as out:
            out.write(json.dumps(document))  # ten times as fast as json.dump
        os.replace(path + '.new', path)


def remove_tree(path):
    """Remove a file or a tree, whatever its modes are."""
    if os.path.isdir(path) and not os.path.islink(path):
        for directory, _, _ in os.walk(path):
            os.chmod(directory, 0o700)
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.lexists(path):
        os.unlink(path)
