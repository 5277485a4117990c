"""What a request must look like; pure functions, each complaint with its row of the checklist.

The real server is forgiving: it drops a malformed run record without a word. Here every such thing
is refused and recorded, so that a test which ends with an empty violations.jsonl has proved it.
"""
import json
import marshal
import re

UUID = re.compile(r'0x[0-9a-f]{32}\Z')
IMAGE = re.compile(r'[^\s@]+@sha256:[0-9a-f]{64}\Z')
SEGMENT = re.compile(r"(?:[A-Za-z0-9_.~-]|%[0-9A-Fa-f]{2})+\Z")
PATH = re.compile(r"(?:[A-Za-z0-9_.~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*\Z")
FORM = re.compile(r'(?:[A-Za-z0-9_.~*+&=-]|%[0-9A-Fa-f]{2})*\Z')

BODY_MAX = 8 * 1024 * 1024
STRING_MAX = 8 * 1024
DEPENDENCIES_MAX = 60000
JSON_TYPE = 'application/json; charset=utf-8'
FORM_TYPE = 'application/x-www-form-urlencoded'
CLIENT = 'Basic Y29kYWxhYl93b3JrZXJfY2xpZW50Og=='
STAGES = ['RUN_STAGE.' + s for s in ('PREPARING', 'RUNNING', 'CLEANING_UP', 'UPLOADING_RESULTS',
                                     'FINALIZING')]
REPORTED = ('preparing', 'running', 'finalizing', 'staged')


class Violation(Exception):
    """A request that the protocol does not allow: `rows` are (row, text) pairs."""

    def __init__(self, rows, status=400):
        super().__init__('; '.join('%s: %s' % pair for pair in rows))
        self.rows, self.status = rows, status


def refuse(row, text, status=400):
    raise Violation([(row, text)], status)


def is_int(v):
    return type(v) is int


def is_number(v):
    return type(v) in (int, float)


def is_string(v):
    return type(v) is str


def is_bool(v):
    return type(v) is bool


def or_null(check):
    return lambda v: v is None or check(v)


def natural(v):
    return is_int(v) and v >= 0


def parse_json(data):
    """JSON as RFC 8259 has it: no NaN, no repeated keys. Raises ValueError."""
    def pairs(items):
        made = dict(items)
        if len(made) != len(items):
            raise ValueError('repeated key')
        return made

    def constant(name):
        raise ValueError(name + ' is not JSON')

    return json.loads(data.decode('utf-8'), object_pairs_hook=pairs, parse_constant=constant)


# ---- check-in ------------------------------------------------------------------------------------

# field, type, its name in words, row
TOP = [
    ('tag', or_null(is_string), 'a string or null', 'B027'),
    ('group_name', or_null(is_string), 'a string or null', 'B029'),
    ('cpus', natural, 'an int', 'B021'),
    ('gpus', natural, 'an int', 'B021'),
    ('memory_bytes', natural, 'an int', 'B021'),
    ('free_disk_bytes', natural, 'an int', 'B023'),
    ('dependencies', lambda v: type(v) is list, 'an array', 'B022'),
    ('hostname', is_string, 'a string', 'B021'),
    ('runs', lambda v: type(v) is list, 'an array', 'B022'),
    ('shared_file_system', is_bool, 'true or false', 'B029'),
    ('tag_exclusive', is_bool, 'true or false', 'B027'),
    ('exit_after_num_runs', lambda v: natural(v) and v < 2**31, 'a 32-bit int', 'B028'),
    ('is_terminating', is_bool, 'true or false', 'B189'),
    ('preemptible', is_bool, 'true or false', 'B029'),
]
RECORD = [
    ('uuid', lambda v: is_string(v) and bool(UUID.match(v)), 'a bundle uuid', 'B021'),
    ('run_status', is_string, 'a string', 'B021'),
    ('bundle_start_time', is_number, 'a number', 'B021'),
    ('container_time_total', lambda v: is_number(v) and v >= 0, 'a number >= 0', 'B038'),
    ('container_time_user', lambda v: is_number(v) and v >= 0, 'a number >= 0', 'B037'),
    ('container_time_system', lambda v: is_number(v) and v >= 0, 'a number >= 0', 'B037'),
    ('docker_image', or_null(lambda v: is_string(v) and bool(IMAGE.match(v))),
     'name@sha256:digest or null', 'B151'),
    ('state', lambda v: v in REPORTED, 'one of ' + ', '.join(REPORTED), 'B060'),
    ('remote', is_string, 'a string', 'B030'),
    ('exitcode', or_null(is_int), 'an int or null', 'B031'),
    ('failure_message', or_null(is_string), 'a string or null', 'B033'),
    ('bundle_profile_stats', or_null(lambda v: type(v) is dict), 'an object or null', 'B034'),
    ('cpu_usage', or_null(lambda v: is_number(v) and v >= 0), 'a number >= 0 or null', 'B036'),
    ('memory_usage', or_null(lambda v: is_number(v) and 0 <= v <= 1), 'a fraction or null', 'B036'),
    ('disk_utilization', natural, 'an int', 'B032'),
]


def field_errors(thing, fields, where=''):
    if type(thing) is not dict:
        return [('B021', where + 'is not an object')]
    found = []
    for name, fits, words, row in fields:
        if name not in thing:
            found.append((row, '%s%s is missing' % (where, name)))
        elif not fits(thing[name]):
            found.append((row, '%s%s must be %s, not %.80r' % (where, name, words, thing[name])))
    return found


def string_errors(thing, where):
    """Every string below `thing` is ASCII and short (B052)."""
    if is_string(thing):
        if not thing.isascii():
            return [('B052', where + ' is not ASCII: %.80r' % thing)]
        if len(thing) > STRING_MAX:
            return [('B052', where + ' is %d bytes long' % len(thing))]
        return []
    items = thing.items() if type(thing) is dict else enumerate(thing) if type(thing) is list else []
    return [e for key, value in items for e in string_errors(value, '%s.%s' % (where, key))]


def profile_errors(stats, where):
    if stats is None:
        return []
    found = []
    for stage in STAGES:
        times = stats.get(stage)
        if type(times) is not dict or sorted(times) != ['elapsed', 'end', 'start']:
            found.append(('B034', '%s%s must have start, end, elapsed' % (where, stage)))
        elif not all(v is None or is_number(v) for v in times.values()):
            found.append(('B034', '%s%s: times must be numbers or null' % (where, stage)))
        elif (times['end'] is None) != (times['elapsed'] is None):
            found.append(('B034', '%s%s: end without elapsed' % (where, stage)))
        elif times['end'] is not None and (times['start'] is None or abs(
                times['end'] - times['start'] - times['elapsed']) > 0.01):
            found.append(('B034', '%s%s: elapsed is not end - start' % (where, stage)))
    return found


def record_errors(record, worker_id, shared=False):
    where = 'run record '
    found = field_errors(record, RECORD, where)
    if found:
        return found
    found = profile_errors(record['bundle_profile_stats'], where)
    if record['remote'] != worker_id:
        found.append(('B030', 'remote %r is not the worker id %r' % (record['remote'], worker_id)))
    ended_well = record['exitcode'] == 0 and record['failure_message'] is None
    if record['state'] == 'finalizing' and ended_well and not found:
        stats = record['bundle_profile_stats'] or {}
        for stage in STAGES[:3] if shared else STAGES[:4]:  # nothing is uploaded there (§6.3)
            if not stats.get(stage, {}).get('elapsed'):
                found.append(('B035', 'finished normally, but %s has no elapsed time' % stage))
    return found


def exact(record):
    """Equal for equal records only, in types too: 1 is not 1.0, nor true."""
    return marshal.dumps(record, 2)


def checkin_errors(body, worker_id, old=()):
    """old: uuids of records that were judged before, the very same ones."""
    found = field_errors(body, TOP)
    if found:
        return found
    for pair in body['dependencies']:
        if type(pair) is not list or len(pair) != 2 or not all(map(is_string, pair)) \
                or not UUID.match(pair[0]):
            found.append(('B139', 'dependencies: %.80r is not [uuid, path]' % (pair,)))
    size = len(json.dumps(body['dependencies'], separators=(',', ':')))
    if size > DEPENDENCIES_MAX:
        found.append(('B051', 'the dependency list takes %d bytes' % size))
    if body['tag_exclusive'] and not body['tag']:
        found.append(('B027', 'tag_exclusive without a tag'))
    names = [r.get('uuid') for r in body['runs'] if type(r) is dict]
    if len(set(map(str, names))) != len(names):
        found.append(('B021', 'a run is reported twice in one check-in'))
    fresh = [r for r in body['runs'] if type(r) is not dict or str(r.get('uuid')) not in old]
    for record in fresh:
        found += record_errors(record, worker_id, body['shared_file_system'])
    rest = {k: v for k, v in body.items() if k != 'dependencies'}
    return found + string_errors({**rest, 'runs': fresh}, 'check-in')


# ---- replies -------------------------------------------------------------------------------------

TARGET = [
    ('name', is_string, 'a string', 'B157'),
    ('type', lambda v: v in ('file', 'directory', 'link', ''), 'file, directory, link or ""', 'B157'),
    ('size', natural, 'an int', 'B157'),
    ('perm', lambda v: natural(v) and v <= 0o777, 'an int up to 511', 'B157'),
]


def target_errors(info, depth, top=True):
    """The schema of get_target_info's answer (§9.2)."""
    found = field_errors(info, TARGET, 'target_info ')
    if found:
        return [('B157', text) for _, text in found]
    known = {'name', 'type', 'size', 'perm'}
    if info['type'] == 'link':
        known.add('link')
    if info['type'] == 'directory' and depth > 0:
        known.add('contents')
    if top:
        known.add('resolved_target')
    if set(info) != known:
        found.append(('B157', 'keys of a %s at depth %d: %s, not %s' % (
            info['type'] or 'special file', depth, sorted(info), sorted(known))))
    for child in info.get('contents', []):
        found += target_errors(child, depth - 1, top=False)
    return found


def resolved_errors(info, uuid, path, hidden):
    found = []
    if info.get('resolved_target') != {'bundle_uuid': uuid, 'subpath': path}:
        found.append(('B158', 'resolved_target is %r' % (info.get('resolved_target'),)))
    for child in info.get('contents', []) if path == '' else []:
        if child['name'] in hidden:
            found.append(('B159', 'the root listing shows dependency %s' % child['name']))
    return found


def reply_errors(body, message):
    """A JSON reply to `message`: an error, or target_info where that was asked for."""
    if type(body) is dict and set(body) == {'error_code', 'error_message'}:
        if is_int(body['error_code']) and is_string(body['error_message']):
            return string_errors(body['error_message'], 'error_message')
        return [('B165', 'error_code must be an int, error_message a string')]
    wants_info = message['type'] == 'read' and message['read_args']['type'] == 'get_target_info'
    if wants_info and type(body) is dict and set(body) == {'target_info'}:
        return target_errors(body['target_info'], message['read_args']['depth'])
    return [('B165', 'this is no reply to %s: keys %s' % (
        message['type'], sorted(body) if type(body) is dict else type(body).__name__))]


START = [
    ('hostname', is_string, 'a string', 'B055'),
    ('start_time', natural, 'an int', 'B055'),
]


def start_errors(body):
    return field_errors(body, START) or string_errors(body, 'start_bundle')
