"""Contents of bundles: upload, info, blob (§2.6, §2.7), from the service's own disk.

A bundle whose document says `blob` is served from the "blob storage": a second port, reached by a
303 with a signed URL, which refuses requests that carry Authorization.
"""
import mimetypes
import os
import re
import secrets
import shutil
import stat
import time
import urllib.parse
import zlib

import archive
import strict
from store import remove_tree

PIECE = 65536
URL_LIFE = 3600
VERSION = '1.7.3'
UPLOAD_QUERY = {'filename': 'bundle.tar.gz', 'finalize_on_success': '0'}


class Problem(Exception):
    """An answer other than 200 that is no violation."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status, self.text = status, text


class Contents:
    def __init__(self, store, bundles, oauth):
        self.store, self.bundles, self.oauth = store, bundles, oauth
        self.storage_url = None
        self.signatures = {}

    def bundle(self, uuid):
        with self.store.lock:
            bundle = self.store.bundles.get(uuid)
        if not bundle:
            raise Problem(404, 'Could not find bundle with uuid %s' % uuid)
        return bundle

    # ---- upload ----

    def check_upload(self, user, uuid, query, headers):
        """Everything that can be said before the body is read."""
        bundle = self.bundle(uuid)
        wanted = dict(UPLOAD_QUERY, store=bundle['metadata'].get('store') or '')
        if sorted(query) != sorted(wanted.items()):
            strict.refuse('B113', 'the upload query is %s, not %s' % (sorted(query), sorted(wanted.items())))
        if (headers.get('Transfer-Encoding') or '').lower() != 'chunked':
            strict.refuse('B113', 'the upload is not chunked')
        for name, allowed in (('Content-Type', None), ('Expect', None), ('Accept-Encoding', 'identity')):
            if headers.get(name) not in (None, allowed):
                strict.refuse('B113', 'the upload has %s: %s' % (name, headers[name]))
        if not self.bundles.may_run(user, bundle):
            raise Problem(403, 'User %s does not have sufficient permissions on bundle %s (have none, '
                               'need all)' % (user['name'], uuid))
        if bundle['state'] in ('ready', 'failed', 'killed'):
            raise Problem(403, 'Contents cannot be modified, bundle already finalized.')
        return bundle

    def upload(self, bundle, body):
        owner = self.oauth.user_by_id(bundle['owner_id'])
        incoming = self.store.path('incoming', secrets.token_hex(8))
        remove_tree(self.store.content(bundle['uuid']))
        left = None if owner['disk_quota'] is None else max(0, owner['disk_quota'] - owner['disk_used'])
        unpacker = archive.Unpacker(incoming, left)
        try:
            unpacker.run(body)
            self._check_names(unpacker.names)
            if not body.ended:
                body.read()
            with self.store.lock:
                remove_tree(self.store.content(bundle['uuid']))
                os.rename(incoming, self.store.content(bundle['uuid']))
        except archive.ArchiveError as why:
            self._fail(bundle, 'Invalid archive upload: failed to unpack archive.')
            strict.refuse('B114', 'upload of %s: %s' % (bundle['uuid'], why))
        except archive.TooBig as size:
            text = ("Can't save bundle, user disk quota exceeded. Bundle size %d greater than user's disk "
                    "quota left: %d" % (size.args[0], left))
            self._fail(bundle, text)
            raise Problem(400, 'Upload failed: ' + text) from None
        finally:
            remove_tree(incoming)
        with self.store.lock:
            bundle['metadata']['data_size'] = archive.disk_use(self.store.content(bundle['uuid']))
            self.store.save_bundle(bundle)

    @staticmethod
    def _check_names(names):
        if names[:1] != ['./']:
            raise archive.ArchiveError('the first member is %r, not ./' % names[:1])
        odd = [n for n in names if not n.startswith('./')]
        if odd:
            raise archive.ArchiveError('member %r does not start with ./' % odd[0])

    def _fail(self, bundle, text):
        with self.store.lock:
            self.bundles.fail(bundle, 'Upload failed: ' + text)

    def note_5xx(self, bundle, why):
        """What a failed upload leaves behind on the server (D09)."""
        with self.store.lock:
            remove_tree(self.store.content(bundle['uuid']))
            bundle['metadata']['failure_message'] = 'Upload failed: ' + why
            bundle['upload_5xx'] = True
            self.store.save_bundle(bundle)

    # ---- download ----

    def locate(self, user, uuid, path):
        """The file behind a bundle path and its lstat; no symlink is followed on the way."""
        bundle = self.bundle(uuid)
        if user and not self.bundles.may_read(user, bundle):
            raise Problem(403, 'User %s does not have sufficient permissions on bundle %s (have none, '
                               'need read)' % (user['name'], uuid))
        missing = Problem(404, "Path '%s' in bundle %s not found" % (path, uuid))
        at = self.store.content(uuid)
        for part in [p for p in path.split('/') if p]:
            if part == '..' or os.path.islink(at):
                raise missing
            at = os.path.join(at, part)
        try:
            return bundle, at, os.lstat(at)
        except (OSError, ValueError):
            raise missing from None

    def info(self, user, uuid, path):
        _, at, status = self.locate(user, uuid, path)
        data = {'name': os.path.basename(path.rstrip('/')) or uuid, 'type': kind_of(status),
                'size': status.st_size, 'perm': stat.S_IMODE(status.st_mode) & 0o777,
                'resolved_target': {'bundle_uuid': uuid, 'subpath': path}}
        if data['type'] == 'link':
            data['link'] = os.readlink(at)
        return {'data': data, 'meta': {'version': VERSION}}

    def blob(self, user, uuid, path, headers, redirect):
        """How to answer a blob request: ('redirect', url) or ('stream', headers, write(out))."""
        bundle, at, status = self.locate(user, uuid, path)
        kind = kind_of(status)
        if kind == 'link' or kind == '':
            raise Problem(403, 'Cannot download files of this type (%s).' % kind)
        span = byte_range(headers.get('Range'))
        if kind == 'directory' and span:
            raise Problem(400, 'Range not supported for directory blobs.')
        if redirect and bundle['blob'] and not span:
            return 'redirect', self._sign(uuid, path)
        if kind == 'directory':
            return 'stream', self._directory_headers(bundle, uuid, path), lambda out: archive.pack(at, out)
        zipped = accepts_gzip(headers)
        return ('stream', self._file_headers(uuid, path, status, zipped),
                lambda out: self._send_file(at, out, zipped, span))

    def _sign(self, uuid, path):
        signature = secrets.token_urlsafe(16)
        self.signatures[signature] = (uuid, path, time.time() + URL_LIFE)
        return '%s/%s/%s?sig=%s' % (self.storage_url, uuid, urllib.parse.quote(path), signature)

    def stored(self, path, query, headers):
        """What the blob storage answers to GET of a signed URL."""
        uuid, target, until = self.signatures.get(query.get('sig'), (None, None, 0))
        if not uuid or time.time() > until or path.lstrip('/') != '%s/%s' % (uuid, urllib.parse.quote(target)):
            raise Problem(403, 'AuthenticationFailed')
        return self.blob(None, uuid, target, headers, redirect=False)

    @staticmethod
    def _directory_headers(bundle, uuid, path):
        name = (os.path.basename(path) or uuid) + '.tar.gz'
        size = 0 if path else bundle['metadata'].get('data_size', 0)
        return {'Content-Encoding': 'identity', 'Content-Type': 'application/gzip',
                'Content-Disposition': 'attachment; filename="%s"' % ascii_name(name),
                'Target-Type': 'directory', 'X-Codalab-Target-Size': str(size)}

    @staticmethod
    def _file_headers(uuid, path, status, zipped):
        name = os.path.basename(path) or uuid
        return {'Content-Encoding': 'gzip' if zipped else 'identity',
                'Content-Type': mimetypes.guess_type(name)[0] or 'application/octet-stream',
                'Content-Disposition': 'inline; filename="%s"' % ascii_name(name),
                'Target-Type': 'file', 'X-Codalab-Target-Size': str(status.st_size)}

    def _send_file(self, at, out, zipped, span):
        members = self.store.settings.get('gzip_members', 1)
        with open(at, 'rb') as source:
            left = os.fstat(source.fileno()).st_size
            if span:
                source.seek(span[0])
                left = span[1] - span[0] + 1
            if not zipped:
                return shutil.copyfileobj(Bounded(source, left), out)
            share = max(1, -(-left // members))
            while True:
                gzip_to(Bounded(source, min(share, left)), out)
                left -= share
                if left <= 0:
                    return None


class Bounded:
    """A file object that ends after so many bytes."""

    def __init__(self, source, left):
        self.source, self.left = source, max(0, left)

    def read(self, size):
        data = self.source.read(min(size, self.left))
        self.left -= len(data)
        return data


def gzip_to(source, out):
    engine = zlib.compressobj(6, zlib.DEFLATED, 31)
    for piece in iter(lambda: source.read(PIECE), b''):
        out.write(engine.compress(piece))
    out.write(engine.flush())


def kind_of(status):
    for check, kind in ((stat.S_ISREG, 'file'), (stat.S_ISDIR, 'directory'), (stat.S_ISLNK, 'link')):
        if check(status.st_mode):
            return kind
    return ''


def accepts_gzip(headers):
    return 'gzip' in [c.split(';')[0].strip() for c in (headers.get('Accept-Encoding') or '').split(',')]


def byte_range(header):
    if header is None:
        return None
    found = re.match(r'bytes=([0-9]+)-([0-9]+)\Z', header)
    if not found:
        raise Problem(400, "Range must be 'bytes=START-END'.")
    return int(found[1]), int(found[2])


def ascii_name(name):
    return name.encode('ascii', 'replace').decode().replace('"', '?')
