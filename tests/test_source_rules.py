"""Rules that the source itself must keep, read from its syntax trees. Each rule first proves that it sees a breach."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.apps import apps
from django.db import models

from portal.microsoft.diagnosis import OWNER_CHOICES, FailureClass
from tests.support.source import COMMANDS, OURS, ROOT, module_name, modules

# Modules that may look into a Secret, and why (S-31). Everything else passes it on unread.
MAY_REVEAL = {
    "portal.microsoft.secret": "the type itself: comparing, measuring and fingerprinting",
    "portal.microsoft.api": "the bearer header of a call",
    "portal.runs.celery": "the broker's address, for Celery",
    "portal.incidents.sinks": "the address of a receiver of anchors, which holds a key",
    "portal.staff.oidc": "code, verifier and credential on their way to the sign-in service; an ID token's claims",
    "portal.staff.colleagues": "a one-time link, on the one page that shows it",
    "portal.staff.directory_views": "the cookie of a trip to the sign-in service, for the browser that owns it",
    "portal.staff.management.commands.create_staff": "a one-time link, printed once",
    "portal.staff.management.commands.recover_staff": "a one-time link, printed once",
    "consent.microsoft.entra": "form fields of the token endpoint",
    "consent.microsoft.credentials": "the application's own credential, for MSAL",
    "consent.microsoft.certificates": "a key from the vault, and the password of an uploaded file",
    "consent.microsoft.managed_identity": "the managed identity's token, for MSAL",
    "consent.microsoft.id_tokens": "reading an ID token's claims and comparing its nonce",
    "consent.sign_in.flow": "PKCE challenge and nonce of the authorize address",
    "consent.tokens.pairing": "the id of a vault, which is no secret",
    "consent.views": "the flow cookie, for the browser that owns it",
    "consent.admin.links": "a link's address, on the one page that shows it",
    "consent.invitations.mails": "a link's address, in the one mail that carries it",
    "consent.vault.azure": "the value on its way into Key Vault",
    "consent.vault.local": "the value on its way into its envelope",
    "consent.vault.keys": "the vault's own keys, for the cipher",
    "consent.management.commands.issue_consent_link": "a link's address, printed once",
    "consent.management.commands.get_access_token": "the token that an operator asked for, to a file or a pipe",
}
# Words of an argument or a setting that only sound like those of a row.
MAY_SPELL_STATES = {
    "consent.microsoft.credentials": "clients know no models, and their argument is a word",
    "consent.vault.azure": "the setting VAULT_IDENTITY",
}
# Only here is HTML built in Python (S-65).
MAY_BUILD_HTML = {"portal.site.display"}
# Fields with such a name hold a secret unless listed here.
SECRET_NAMES = re.compile(r"(?:^|_)(?:token|secret|password|assertion|verifier|nonce|code|cookie|binder)$")
NOT_SECRET = {
    "Latest.code": "Microsoft's error code",
    "Outcome.code": "Microsoft's error code",
    "CheckResult.code": "Microsoft's error code",
    "Diagnosis.code": "Microsoft's error code",
}
# Modules whose texts only a command prints, or the start of a process; all others may reach a page.
MAY_NAME_COMMANDS = {
    "portal.commands": "the help of a command",
    "portal.settings": "what keeps a process from starting",
    "portal.databases": "what an operator does about a database, in commands and logs",
    "portal.runs.console": "what a command prints while it works a run",
    "consent.clients": "a CA file that is missing keeps the process from starting",
    "consent.vault.rotation": "the command that takes an old key out",
}
COMMAND_WORDS = re.compile(
    r"\bmanage\.py\b|\bmake (?:sandbox|demo|check|run)\b|"
    rf"\b(?:{'|'.join(path.stem for path in COMMANDS if '_' in path.stem)})\b"
)
TEMPLATES = sorted((ROOT / "templates").rglob("*.html"))


# Each module is parsed, walked and written out once for all rules.


@functools.cache
def trees() -> dict[Path, ast.AST]:
    return {path: ast.parse(path.read_text()) for path in modules()}


@functools.cache
def nodes(tree: ast.AST) -> list[ast.AST]:
    return list(ast.walk(tree))


@functools.cache
def written(tree: ast.AST) -> str:
    """Return the module without its comments, in one form."""
    return ast.unparse(tree)


@functools.cache
def calls(tree: ast.AST) -> list[tuple[ast.Call, str, str]]:
    """Return each call with what stands before the last dot and after it: ``requests.get`` or ``print``."""
    found = []
    for node in nodes(tree):
        if isinstance(node, ast.Call):
            before, _, name = ast.unparse(node.func).rpartition(".")
            found.append((node, before, name))
    return found


def reveals(tree: ast.AST) -> bool:
    return any(isinstance(node, ast.Attribute) and node.attr == "reveal" for node in nodes(tree))


def builds_html(tree: ast.AST) -> bool:
    banned = {"mark_safe", "SafeString", "SafeText", "format_html", "format_html_join", "html_safe", "autoescape_off"}
    named = {node.id for node in nodes(tree) if isinstance(node, ast.Name)}
    imported = {alias.name for node in nodes(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    return bool(banned & (named | imported)) or any(
        isinstance(node, ast.FunctionDef) and node.name == "__html__" for node in nodes(tree)
    )


def marks_safe(tree: ast.AST) -> bool:
    return any(name in {"mark_safe", "SafeString", "SafeText"} for _, _, name in calls(tree))


def switches_verification_off(tree: ast.AST) -> bool:
    return any(
        keyword.arg in {"verify", "check_hostname", "ssl", "verify_ssl"}
        and isinstance(keyword.value, ast.Constant)
        and keyword.value.value is False
        for call, _, _ in calls(tree)
        for keyword in call.keywords
    ) or bool(re.search(r"CERT_NONE|_create_unverified_context|disable_warnings", written(tree)))


def calls_out_unguarded(tree: ast.AST) -> bool:
    verbs = {"get", "post", "put", "patch", "delete", "head", "options", "request", "Session", "session"}
    return any(
        (before == "requests" and name in verbs)
        or name in {"urlopen", "HTTPSConnection", "HTTPConnection", "PoolManager", "create_connection"}
        for _, before, name in calls(tree)
    )


def locks_rows(tree: ast.AST) -> bool:
    return any(name == "select_for_update" for _, _, name in calls(tree))  # does nothing on SQLite; we claim instead


def prints(tree: ast.AST) -> bool:
    return any(name == "print" and not before for _, before, name in calls(tree))


def tells_naive_time(tree: ast.AST) -> bool:
    return any(
        (name in {"utcnow", "utcfromtimestamp", "today"} and "date" in before)
        or (name in {"now", "fromtimestamp"} and before.endswith("datetime") and not (call.args or call.keywords))
        or (name == "fromtimestamp" and before.endswith("datetime") and len(call.args) + len(call.keywords) < 2)
        for call, before, name in calls(tree)
    )


def reads_environment(tree: ast.AST) -> bool:
    text = written(tree)
    return "os.environ" in text or "getenv" in text


def catches_everything_silently(tree: ast.AST) -> bool:
    return any(
        isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in {"Exception", "BaseException"})
        and all(isinstance(line, ast.Pass | ast.Continue) for line in node.body)
        for node in nodes(tree)
    )


def keeps_plain_secrets(tree: ast.AST) -> bool:
    return any(
        isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and SECRET_NAMES.search(field.target.id)
        and re.search(r"\bstr\b|\bbytes\b", ast.unparse(field.annotation))
        and f"{node.name}.{field.target.id}" not in NOT_SECRET
        for node in nodes(tree)
        if isinstance(node, ast.ClassDef) and any("dataclass" in ast.unparse(one) for one in node.decorator_list)
        for field in node.body
    )


def logs_a_secret_by_name(tree: ast.AST) -> bool:
    secret = re.compile(r"(?:token|secret|password|assertion|verifier|nonce|binder|state)$")
    return any(
        isinstance(argument, ast.Name) and secret.search(argument.id)
        for _, before, name in calls(tree)
        if before in {"log", "logger", "logging"} and name in {"debug", "info", "warning", "error", "exception"}
        for argument in _.args[1:]
    )


# Stores that unpickle what lies in them, and modules that turn bytes into objects of any class.
_UNPICKLES = re.compile(
    r"core\.cache\.backends\.(?!dummy)|sessions\.backends\.(?:cache|cached_db|file|db$)|"
    r"[Pp]ickle|x-python-serialize"
)
_OBJECT_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "jsonpickle", "joblib", "shelve", "marshal", "yaml"}


def unpickles(tree: ast.AST) -> bool:
    """See each module, cache, session store and serialiser that loads objects, and each use of Django's caches."""
    lines = [ast.unparse(node) for node in nodes(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {word for line in lines for word in re.findall(r"[\w.]+", line)}
    docstrings = {
        id(node.body[0].value)
        for node in nodes(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    texts = [
        node.value
        for node in nodes(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
    ]
    return (
        bool(modules & _OBJECT_MODULES)
        or any("django.core.cache" in line for line in lines)
        or any(_UNPICKLES.search(text) for text in lines + texts)
    )


@functools.cache
def state_words() -> dict[str, set[str]]:
    """Return the words of each field with an enum of its own, also of what querysets annotate (``progress``)."""
    own = [enum for enum in models.TextChoices.__subclasses__() if enum.__module__.partition(".")[0] in OURS]
    known = [*(enum.choices for enum in own), OWNER_CHOICES]
    found = {name: {*FailureClass} for name in ("failure_class", "last_class", "last_problem")}
    for enum in own:
        found.setdefault(enum.__name__.lower(), set()).update(enum.values)
    for model in apps.get_models():
        if model.__module__.partition(".")[0] in OURS:
            for field in model._meta.fields:
                if (choices := list(field.choices or [])) in known:
                    found.setdefault(field.name, set()).update(str(word) for word, _ in choices)
    return found


def _texts(node: ast.AST) -> Iterator[str]:
    """Yield the literals that an expression may be, or that a list of it holds."""
    match node:
        case ast.Constant(value=str() as text):
            yield text
        case ast.List(elts=each) | ast.Tuple(elts=each) | ast.Set(elts=each) | ast.BoolOp(values=each):
            for one in each:
                yield from _texts(one)
        case ast.IfExp(body=this, orelse=that):
            yield from (*_texts(this), *_texts(that))


def _name(node: ast.AST) -> str:
    match node:
        case ast.Attribute(attr=name) | ast.Name(id=name) | ast.Subscript(slice=ast.Constant(value=str() as name)):
            return name
    return ""


def _named_values(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Yield each name that a node gives a value or compares with one: ``filter(state__in=x)``, ``run.state == x``."""
    match node:
        case ast.Call(keywords=keywords):
            yield from ((keyword.arg or "", keyword.value) for keyword in keywords)
        case ast.Dict(keys=keys, values=values):
            named = zip(keys, values, strict=True)
            yield from (
                (key.value, value)
                for key, value in named
                if isinstance(key, ast.Constant) and isinstance(key.value, str)
            )
        case ast.Assign(targets=targets, value=value):
            yield from ((_name(target), value) for target in targets)
        case ast.Compare(left=left, comparators=others):
            yield from ((_name(one), other) for one in (left, *others) for other in (left, *others))


def spells_states(tree: ast.AST) -> bool:
    """See literals where a member of the field's enum belongs. Constraints cannot name a class that encloses them."""
    words = state_words()
    any_word = set().union(*words.values()) - {""}
    constraints = {
        id(node)
        for meta in nodes(tree)
        if isinstance(meta, ast.ClassDef) and meta.name == "Meta"
        for node in ast.walk(meta)
    }
    outside = [node for node in nodes(tree) if id(node) not in constraints]
    return any(
        text in words.get(name.removesuffix("__in").rpartition("__")[2], ())
        for node in outside
        for name, value in _named_values(node)
        for text in _texts(value)
    ) or any(
        text in any_word
        for node in outside
        if isinstance(node, ast.Call) and _name(node.func) == "Value"
        for argument in node.args
        for text in _texts(argument)
    )


def names_commands(tree: ast.AST) -> bool:
    """Texts with a space are read by people; a name alone is an action's or a job's, and docstrings are ours."""
    ours = {
        id(node.value) for node in nodes(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    return any(
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in ours
        and " " in node.value
        and COMMAND_WORDS.search(node.value) is not None
        for node in nodes(tree)
    )


DATACLASS = "@dataclass\nclass A:\n    "
# rule: how it is found, modules that may, what it must see
RULES: dict[str, tuple[Callable[[ast.AST], bool], set[str], list[str]]] = {
    "only sink modules reveal a secret": (reveals, set(MAY_REVEAL), ["x.reveal()", "f(x.reveal)", "x().y.reveal()"]),
    "no module calls text safe": (
        marks_safe,
        set(),
        ["mark_safe(x)", "SafeString('<b>')", "safestring.mark_safe(x)"],
    ),
    "only the display module builds HTML": (
        builds_html,
        MAY_BUILD_HTML,
        [
            "from django.utils.html import format_html",
            "mark_safe",
            "class A:\n    def __html__(self): return 1",
        ],
    ),
    "nobody switches TLS verification off": (
        switches_verification_off,
        set(),
        ["s.get(u, verify=False)", "ssl._create_unverified_context()", "c.verify_mode = ssl.CERT_NONE"],
    ),
    "calls go through the guarded session": (
        calls_out_unguarded,
        {"portal.incidents.sinks"},  # syslog, which is no HTTP
        ["requests.get(u)", "requests.Session()", "urllib.request.urlopen(u)", "socket.create_connection(a)"],
    ),
    "rows are claimed, not locked": (locks_rows, set(), ["A.objects.select_for_update().get()"]),
    "nothing is printed past the command's own streams": (prints, set(), ["print(1)"]),
    "time is aware": (
        tells_naive_time,
        set(),
        ["datetime.now()", "datetime.datetime.now()", "datetime.utcnow()", "date.today()", "datetime.fromtimestamp(1)"],
    ),
    "only one module reads the environment": (
        reads_environment,
        {"portal.wsgi", "portal.runs.celery"},
        ["os.environ['A']", "os.getenv('A')"],
    ),
    "an error is not swallowed without a word": (
        catches_everything_silently,
        set(),
        [
            "try:\n    f()\nexcept:\n    pass",
            "for a in b:\n    try:\n        f()\n    except Exception:\n        continue",
        ],
    ),
    "a secret in a dataclass has its type": (
        keeps_plain_secrets,
        set(),
        [DATACLASS + "refresh_token: str", DATACLASS + "nonce: str | None = None", DATACLASS + "secret: bytes"],
    ),
    "nothing is unpickled": (
        unpickles,
        set(),
        [
            "import pickle",
            "from shelve import open",
            "import yaml",
            "from django.core.cache import cache",
            "CACHES = {'default': {'BACKEND': 'django.core.cache.backends.db.DatabaseCache'}}",
            "CACHES = {'default': {'BACKEND': 'django.core.cache.backends.redis.RedisCache'}}",
            "SESSION_ENGINE = 'django.contrib.sessions.backends.cached_db'",
            "SESSION_ENGINE = 'django.contrib.sessions.backends.db'",
            "SESSION_SERIALIZER = 'django.contrib.sessions.serializers.PickleSerializer'",
            "app.conf.update(accept_content=['json', 'pickle'])",
            "app.conf.update(task_serializer='pickle')",
        ],
    ),
    "a state is a member of its enum": (
        spells_states,
        set(MAY_SPELL_STATES),
        [
            "rows.filter(state='open')",
            "rows.exclude(run__state__in=['open', 'paused'])",
            "Q(last_owner__in=('us', 'partner'))",
            "Q(result='')",
            "rows.get(registration__state='active')",
            "ConsentObservation.objects.create(changed_by='outside')",
            "rows.update(decision='waiting')",
            "rows.filter(**{'link__kind': 'sign_in'})",
            "Case(When(done, then=Value('failed')))",
            "item.exclude(failure_class='ok')",
            "Outcome(failure_class='ok' if done else consent.state)",
            "item.owner = 'us'",
            "run.state == 'open'",
            "item.state not in {'done', 'working'}",
            "'failed' == row['state']",
        ],
    ),
    "no secret is handed to a logger": (logs_a_secret_by_name, set(), ["log.info('%s', refresh_token)"]),
}


@pytest.fixture(autouse=True, scope="module")
def _forget_the_trees() -> Iterator[None]:
    """Hundreds of trees are no load for the tests of other files."""
    yield
    for cached in (trees, nodes, written, calls, words_of_tests, tracked_files):
        cached.cache_clear()


@pytest.mark.req("S-31")
@pytest.mark.req("S-65")
@pytest.mark.req("S-26")
@pytest.mark.parametrize("rule", RULES)
def test_the_source_keeps_the_rule(rule: str) -> None:
    breaks, allowed, _ = RULES[rule]
    breaking = {module_name(path) for path, tree in trees().items() if breaks(tree)}
    assert breaking - allowed == set()
    # An allowance that nobody needs any more would let the next one through unseen.
    assert allowed - breaking == set()


@pytest.mark.req("S-75")
@pytest.mark.parametrize(("rule", "breach"), [(rule, breach) for rule, (*_, all_) in RULES.items() for breach in all_])
def test_the_rule_sees_a_breach(rule: str, breach: str) -> None:
    assert RULES[rule][0](ast.parse(breach))


@pytest.mark.parametrize(
    ("rule", "harmless"),
    [
        ("time is aware", "timezone.now()\ndatetime.now(UTC)\ndatetime.fromtimestamp(1, UTC)"),
        ("calls go through the guarded session", "session.get(u)\nrequests.Response()\nbody.get('x')"),
        (
            "a secret in a dataclass has its type",
            DATACLASS + "refresh_token: Secret | None\n    error_codes: list[int]",
        ),
        ("nothing is printed past the command's own streams", "self.stdout.write(x)\npprint.pformat(x)"),
        ("nobody switches TLS verification off", "s.get(u, verify=ca_file)"),
        (
            "a state is a member of its enum",
            "rows.filter(state=State.OPEN, name='open')\nclass A:\n  class Meta:\n    a = Q(state='open')",
        ),
    ],
)
def test_the_rule_lets_the_rest_pass(rule: str, harmless: str) -> None:
    assert not RULES[rule][0](ast.parse(harmless))


@functools.cache
def words_of_tests() -> set[str]:
    """Return what stands between quotes or blanks in the tests, but for this file."""
    others = "\n".join(one.read_text() for one in (ROOT / "tests").rglob("*.py") if one != Path(__file__))
    return set(re.findall(r"(?<=[\"' ])[a-z_]+(?=[\"' ])", others))


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_every_command_is_named_in_a_test_and_says_what_it_does(path: Path) -> None:
    assert path.stem in words_of_tests(), "no test names this command"
    assert re.search(r"^    help = ", path.read_text(), re.MULTILINE)


# --- templates -----------------------------------------------------------------------------------------------------

INLINE = {
    "an event handler": re.compile(r"<[^>]*\son[a-z]+\s*=", re.IGNORECASE),
    "an inline style": re.compile(r"<style\b|<[^>]*\sstyle\s*=", re.IGNORECASE),
    "an inline script": re.compile(r"<script\b(?![^>]*\ssrc=)[^>]*>", re.IGNORECASE),
    "a javascript address": re.compile(r"javascript:", re.IGNORECASE),
    "switched-off escaping": re.compile(r"\|\s*safe(seq)?\b|\{%\s*autoescape\s+off"),
    "something of another site": re.compile(
        r"<(?:script|link|img|iframe|source|video|audio)\b[^>]*\b(?:src|href)\s*=\s*[\"']?(?:https?:)?//", re.IGNORECASE
    ),
}


@pytest.mark.req("S-61")
@pytest.mark.req("S-65")
@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(ROOT / "templates")))
def test_a_template_has_nothing_inline_and_nothing_foreign(path: Path) -> None:
    text = path.read_text()
    assert [what for what, pattern in INLINE.items() if pattern.search(text)] == []


@pytest.mark.parametrize(
    ("what", "breach"),
    [
        ("an event handler", '<a href="/" onclick="x()">'),
        ("an event handler", "<body\nonload=x()>"),
        ("an inline style", "<style>"),
        ("an inline style", '<p class="a" style="color:red">'),
        ("an inline script", "<script>x()</script>"),
        ("an inline script", '<script type="module">x()</script>'),
        ("a javascript address", '<a href="JavaScript:x()">'),
        ("switched-off escaping", "{{ name|safe }}"),
        ("switched-off escaping", "{% autoescape off %}"),
        ("something of another site", '<script src="https://cdn.example/x.js"></script>'),
        ("something of another site", "<img src=//evil.example/x.png>"),
    ],
)
def test_the_template_rule_sees_a_breach(what: str, breach: str) -> None:
    assert INLINE[what].search(breach)


# --- words of pages ------------------------------------------------------------------------------------------------


def test_no_page_names_a_command() -> None:
    """Where a command is the only way, the page is missing: a text says what staff do, or what an operator does."""
    others = {path: tree for path, tree in trees().items() if "management" not in path.parts}
    breaking = {module_name(path) for path, tree in others.items() if names_commands(tree)}
    assert breaking == set(MAY_NAME_COMMANDS)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(ROOT / "templates")))
def test_a_template_names_no_command(path: Path) -> None:
    tags = re.compile(r"\{%\s*(?:url|if|include|extends|load|for)\b[^%]*%\}|\{#.*?#\}|\{\{.*?\}\}")
    assert COMMAND_WORDS.findall(tags.sub("", path.read_text())) == []


@pytest.mark.parametrize(
    "breach",
    [
        "words = 'Look at it; see that keep_alive runs every hour.'",
        "words = f'Then {name} is read: push_consent {pk}.'",
        "explanation = 'Let an operator run manage.py migrate.'",
        "words = ('start it with '\n  'make sandbox, or not')",
    ],
)
def test_the_rule_of_commands_sees_a_breach(breach: str) -> None:
    assert names_commands(ast.parse(breach))


# --- the repository ------------------------------------------------------------------------------------------------

SAMPLES = {
    "a JSON Web Token": (r"eyJ[A-Za-z0-9_-]{20,}\.eyJ[A-Za-z0-9_-]{20,}\.", f"eyJ{'a' * 30}.eyJ{'b' * 30}."),
    "an Entra refresh token or code": (r"\b[01]\.A[A-Za-z0-9_-]{100,}", "0.A" + "c" * 120),
    "an Entra client secret": (r"\b[A-Za-z0-9_~.-]{3}[78]Q~[A-Za-z0-9_~.-]{31,34}", "abc8Q~" + "d" * 34),
    "a private key": (
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=\s]{64,}",
        "-----BEGIN PRIVATE KEY-----\n" + "e" * 64,
    ),
    "a storage key": (r"AccountKey=[A-Za-z0-9+/=]{40,}", "AccountKey=" + "f" * 60),
}
TEXTS = {".py", ".md", ".html", ".js", ".css", ".toml", ".txt", ".yml", ".yaml", ".sh", ".example", ".pem", ".json", ""}


@functools.cache
def tracked_files() -> dict[str, str]:
    """Return the texts of the repository by their paths."""
    left_out = {".git", ".venv", ".demo", ".local", ".mypy_cache", ".ruff_cache", ".hypothesis", "screenshots"}
    found: dict[str, str] = {}
    for folder, folders, names in ROOT.walk():
        folders[:] = [name for name in folders if name not in left_out]
        paths = [folder / name for name in names if name not in left_out | {".env", Path(__file__).name}]
        found |= {str(path): path.read_text(errors="ignore") for path in paths if path.suffix in TEXTS}
    return found


@pytest.mark.req("S-73")
@pytest.mark.parametrize("what", SAMPLES)
def test_no_file_holds_anything_that_looks_like_a_credential(what: str) -> None:
    pattern, sample = SAMPLES[what]
    assert re.search(pattern, f"x = '{sample}'"), "the scan does not see its own sample"
    holding = [path for path, text in tracked_files().items() if re.search(pattern, text)]
    assert holding == []
