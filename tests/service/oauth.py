"""Users and access tokens: the password grant of §2.2 and the Bearer check of every other call."""
import base64
import re
import secrets
import time
import urllib.parse

import strict

LEFT_AT_LEAST = 300
SLACK = 30
REUSE_AFTER_401 = 30


class Denied(Exception):
    """An answer of 401 that is no violation: wrong password, expired or dropped token."""

    def __init__(self, text):
        super().__init__(text)
        self.text = text


class OAuth:
    def __init__(self, store, expires_in):
        self.store, self.expires_in = store, expires_in

    def add_user(self, name, password, root=False, **more):
        with self.store.lock:
            old = self.store.users.get(name)
            identity = old['id'] if old else str(len(self.store.users) + 1)
            self.store.users[name] = {
                'id': identity, 'name': name, 'password': password, 'root': root, 'verified': True,
                'time_used': 0, 'disk_used': 0, 'time_quota': None, 'disk_quota': None,
                **(old or {}), 'password': password, 'root': root, **more}
            self.store.save('users')
            return self.store.users[name]

    def user_by_id(self, identity):
        for user in self.store.users.values():
            if user['id'] == identity:
                return user
        return None

    def token(self, headers, data):
        """Body of the answer to POST /oauth2/token, as (status, object)."""
        if headers.get('Authorization') is None:
            strict.refuse('B003', 'the token request has no Basic authorization', 401)
        if headers['Authorization'] != strict.CLIENT:
            self._say_wrong_client(headers['Authorization'])
        if headers.get('Content-Type') != strict.FORM_TYPE:
            strict.refuse('B003', 'Content-Type %r is not a form' % headers.get('Content-Type'))
        fields = self._form(data)
        user = self.store.users.get(fields['username'])
        if not user or user['password'] != fields['password']:
            return 401, {'error': 'invalid_grant', 'error_description': 'Invalid credentials given.'}
        return 200, self._issue(user)

    def _say_wrong_client(self, header):
        try:
            who = base64.b64decode(header.split(' ', 1)[1]).decode()
        except (IndexError, ValueError):
            who = '?'
        strict.refuse('B003', 'Basic authorization of client %.40r' % who.split(':')[0], 401)

    def _form(self, data):
        text = data.decode('latin-1')
        if not strict.FORM.match(text):
            strict.refuse('B004', 'the form is not encoded: %r' % re.sub(r'password=[^&]*', '', text))
        try:
            pairs = urllib.parse.parse_qsl(text, keep_blank_values=True, strict_parsing=True,
                                           errors='strict')
        except ValueError as why:
            strict.refuse('B004', 'the form is malformed: %s' % type(why).__name__)
        if sorted(k for k, _ in pairs) != ['grant_type', 'password', 'username']:
            strict.refuse('B003', 'the form has the fields %s' % sorted(k for k, _ in pairs))
        fields = dict(pairs)
        if fields['grant_type'] != 'password':
            strict.refuse('B003', 'grant_type is %.40r' % fields['grant_type'])
        return fields

    def _issue(self, user):
        token, now = secrets.token_urlsafe(24), time.time()
        with self.store.lock:
            self.store.tokens = {t: v for t, v in self.store.tokens.items()
                                 if v['expires'] > now - 86400}
            self.store.tokens[token] = {'user': user['name'], 'expires': now + self.expires_in,
                                        'life': self.expires_in, 'dropped': False, 'refused': None}
            self.store.save('tokens')
        token_type = self.store.settings.get('token_type', 'Bearer')
        return {'access_token': token, 'expires_in': self.expires_in, 'token_type': token_type,
                'scope': 'default', 'refresh_token': secrets.token_urlsafe(24)}

    def drop_all(self):
        """The server forgets every token it gave (D03)."""
        with self.store.lock:
            for token in self.store.tokens.values():
                token['dropped'] = True
            self.store.save('tokens')

    def user(self, headers):
        """The user behind the Bearer token."""
        header = headers.get('Authorization')
        if header is None or not re.match(r'Bearer [A-Za-z0-9._~+/-]+=*\Z', header):
            strict.refuse('B005', 'no Bearer token' if header is None else
                          'Authorization is of type %.20r' % header.split(' ')[0], 401)
        with self.store.lock:
            token = self.store.tokens.get(header[len('Bearer '):])
            if not token:
                strict.refuse('B005', 'a Bearer token that was never issued', 401)
            self._check_life(token)
            user = self.store.users.get(token['user'])
        if not user['verified']:
            raise Denied('User is not verified.')
        return user

    def _check_life(self, token):
        now = time.time()
        left = token['expires'] - now
        if token['dropped']:
            if token['refused'] and now > token['refused'] + REUSE_AFTER_401:
                strict.refuse('B007', 'a token refused long ago is still in use', 401)
            token['refused'] = token['refused'] or now
            raise Denied('User is not authenticated.')
        if left < min(LEFT_AT_LEAST, token['life']) - SLACK:
            strict.refuse('B006', 'a token with %d s left was not renewed' % left, 401)
        if left < 0:
            raise Denied('User is not authenticated.')
