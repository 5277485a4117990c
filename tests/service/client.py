"""The user of the reference service: submit, look, wait, fetch, through its admin door.

    client = Client('http://127.0.0.1:1234')
    uuid = client.run('echo hi', metadata={'request_docker_image': '127.0.0.1:5000/demo:1'})
    assert client.wait(uuid)['state'] == 'ready'
    client.cat(uuid, 'stdout')
Any verb of admin.py is a method: client.violations(), client.fault(endpoint='upload', status=500), …
"""
import base64
import http.client
import io
import json
import os
import ssl
import tarfile
import time
import urllib.error
import urllib.parse
import urllib.request

FINAL = ('ready', 'failed', 'killed')
POLL = 0.2
CALL_SECONDS = 200


class Refused(Exception):
    """The service said no: status, text."""

    def __init__(self, status, text):
        super().__init__('%d %s' % (status, text))
        self.status, self.text = status, text


class TimedOut(Exception):
    """A bundle did not get where it was awaited; the text holds its last state."""


class Client:
    def __init__(self, url, admin_token=None, ca=None, owner=None):
        self.url, self.token, self.owner = url.rstrip('/'), admin_token, owner
        self.context = ssl.create_default_context(cafile=ca) if self.url.startswith('https') else None

    def _open(self, path, body=None, headers=None):
        headers = dict(headers or {})
        if self.token:
            headers['X-Admin-Token'] = self.token
        request = urllib.request.Request(self.url + path, data=body, headers=headers,
                                         method='POST' if body is not None else 'GET')
        handlers = [urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self.context)]
        try:
            return urllib.request.build_opener(*handlers).open(request, timeout=CALL_SECONDS)
        except urllib.error.HTTPError as why:
            with why:
                raise Refused(why.code, why.read().decode('utf-8', 'replace')) from None

    def call(self, verb, **args):
        with self._open('/admin/' + verb, json.dumps(args).encode(),
                        {'Content-Type': 'application/json'}) as answer:
            return json.loads(answer.read())

    def __getattr__(self, verb):
        if verb.startswith('_'):
            raise AttributeError(verb)
        return lambda **args: self.call(verb, **args)

    # ---- bundles ----

    def run(self, command, dependencies=(), metadata=None, resources=None, owner=None, **more):
        """more: metadata again, with `request_` left out: image=, cpus=, memory=, time=, disk=, gpus=,
        network=, queue=."""
        made = dict(metadata or {})
        for key, value in more.items():
            made['request_' + ('docker_image' if key == 'image' else key)] = value
        return self.call('run', command=command, dependencies=[list(d) for d in dependencies],
                         metadata=made, resources=resources, owner=owner or self.owner)

    def upload(self, source, name=None, **query):
        """A dataset from a file, a directory, or bytes (a file; with kind='directory' a tar.gz)."""
        kind = query.pop('kind', 'file')
        if isinstance(source, bytes):
            data = source
        elif os.path.isdir(source):
            kind, data = 'directory', pack(source)
        else:
            with open(source, 'rb') as file:
                data = file.read()
        query.update(kind=kind, name=name or 'data')
        if self.owner:
            query.setdefault('owner', self.owner)
        text = urllib.parse.urlencode({k: int(v) if isinstance(v, bool) else v for k, v in query.items()})
        with self._open('/admin/upload?' + text, data, {'Content-Type': 'application/octet-stream'}) as answer:
            return json.loads(answer.read())

    def info(self, uuid):
        return self.call('info', uuid=uuid)

    def wait(self, uuid, states=FINAL, timeout=120, progress=None, tolerate=False):
        """The bundle once it is in one of `states`; progress(bundle) is called when state or status
        changes. With tolerate, a service that is away for a while is waited for."""
        deadline, seen = time.monotonic() + timeout, None
        states = (states,) if isinstance(states, str) else states
        while True:
            bundle = None
            try:
                bundle = self.info(uuid)
            except (OSError, http.client.HTTPException):
                if not tolerate:
                    raise
            if bundle:
                now = (bundle['state'], bundle['metadata'].get('run_status'))
                if progress and now != seen:
                    progress(bundle)
                seen = now
                if bundle['state'] in states:
                    return bundle
            if time.monotonic() > deadline:
                raise TimedOut('%s is %s after %d s, awaited: %s\n%s' % (
                    uuid, seen, timeout, ', '.join(states), json.dumps(bundle, indent=1)))
            time.sleep(POLL)

    # ---- contents ----

    def read(self, uuid, path='', **args):
        """One of the five reads: type=…, and its arguments. target_info as an object, else bytes."""
        answer = self.call('read', uuid=uuid, path=path, args=args)
        return answer['json'] if 'json' in answer else base64.b64decode(answer['data'])

    def netcat(self, uuid, port, message):
        return base64.b64decode(self.call('netcat', uuid=uuid, port=port, message=message)['data'])

    def cat(self, uuid, path=''):
        """A file's bytes: of a running bundle by its worker, else as stored."""
        return self.read(uuid, path, type='stream_file')

    def tree(self, uuid, path=''):
        """A directory bundle's contents as an open tarfile."""
        query = urllib.parse.urlencode({'uuid': uuid, 'path': path})
        with self._open('/admin/contents?' + query) as answer:
            return tarfile.open(fileobj=io.BytesIO(answer.read()))

    def fetch(self, uuid, directory, path=''):
        """A directory bundle's contents, unpacked."""
        os.makedirs(directory, exist_ok=True)
        with self.tree(uuid, path) as tar:
            if hasattr(tarfile, 'tar_filter'):
                tar.extractall(directory, filter='tar')
            else:
                tar.extractall(directory)

    def files(self, uuid):
        """Names below a stored directory bundle, sorted, without ./"""
        with self.tree(uuid) as tar:
            return sorted(n[2:] for n in tar.getnames() if n != '.')


def pack(directory):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w:gz') as tar:
        tar.add(directory, arcname='.')
    return out.getvalue()
