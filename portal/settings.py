"""All settings. Safe when unset: everything that a mistake could open stays closed, everything required stops the
start with the variable's name. ``.env.example`` and README's table list every variable; a test compares them.
"""

from __future__ import annotations

from pathlib import Path
from re import fullmatch
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

from portal.environment import Environment, readers
from portal.microsoft.clouds import MICROSOFT, UnknownCloud, get_cloud, local_clouds
from portal.microsoft.identifiers import canonical_guid
from portal.microsoft.secret import Secret
from portal.site.logs import logging_config
from portal.site.policy import SITE_POLICY

BASE_DIR = Path(__file__).resolve().parent.parent
env = Environment(BASE_DIR / ".env")

# Database and embedded vault by default.
_local = BASE_DIR / ".local"
if not env.text("DATABASE_URL", "") or not env.text("VAULT_URL", ""):
    _local.mkdir(mode=0o700, exist_ok=True)

# --- the deployment -----------------------------------------------------------------------------------------------

DEBUG = env.flag("DEBUG")
SECRET_KEY = env.text("SECRET_KEY")
SECRET_KEY_FALLBACKS = env.words("SECRET_KEY_FALLBACKS")
# Fingerprints of tokens and the audit chain hang on this key, so it does not change with SECRET_KEY (S-30, S-57).
INTEGRITY_KEY = env.text("INTEGRITY_KEY")

# Test endpoints: the port of a sandbox on this machine, and the CA that signed its certificate. `check --deploy`
# fails when they are set (S-27).
TEST_ENDPOINTS = env.number("TEST_ENDPOINTS", 0, maximum=65535)
TEST_SIGN_IN_PORT = env.number("TEST_SIGN_IN_PORT", 0, maximum=65535)
TEST_CA_FILE = env.text("TEST_CA_FILE", "")
if TEST_ENDPOINTS and not TEST_CA_FILE:
    raise ImproperlyConfigured("TEST_ENDPOINTS needs TEST_CA_FILE: the ca.pem that `make sandbox` writes")

PUBLIC_BASE_URL = env.text("PUBLIC_BASE_URL").rstrip("/")  # S-28: absolute links never come from a request
_base = urlsplit(PUBLIC_BASE_URL)
# Browsers treat http on localhost as secure and carry our cookies there; only a demo on one machine may use that.
_local_demo = bool(TEST_ENDPOINTS) and _base.scheme == "http" and f".{_base.hostname}".endswith(".localhost")
if not _base.hostname or (_base.scheme != "https" and not _local_demo):
    raise ImproperlyConfigured("PUBLIC_BASE_URL must look like https://portal.example.com")
ADMIN_HOST = env.text("ADMIN_HOST", "")  # S-25: when set, staff pages answer on this host[:port] only
ALLOWED_HOSTS = env.words("ALLOWED_HOSTS", (str(_base.hostname),))
if ADMIN_HOST:
    ALLOWED_HOSTS.append(ADMIN_HOST.partition(":")[0])
if "*" in ALLOWED_HOSTS:
    raise ImproperlyConfigured("ALLOWED_HOSTS must name hosts; * would accept any Host header")
# As many of the last addresses in X-Forwarded-For are ours (S-29).
TRUSTED_PROXIES = env.number("TRUSTED_PROXIES", 0, maximum=10)
# S-63: the first multiplies all limits per address; with so many open flows as the second, starting slows down.
REQUEST_LIMIT_FACTOR = env.number("REQUEST_LIMIT_FACTOR", 1, minimum=1, maximum=1000)
OPEN_FLOW_LIMIT = env.number("OPEN_FLOW_LIMIT", 1000, minimum=1)

# S-50: True where there is one member of staff only, who then confirms alone what two persons decide about elsewhere.
STAFF_SINGLE_PERSON = env.flag("STAFF_SINGLE_PERSON")

VENDOR_NAME = env.text("VENDOR_NAME", "Example Control Panel")
SUPPORT_EMAIL = env.text("SUPPORT_EMAIL", "")

# --- e-mail: invitations to partners, alerts to staff ---------------------------------------------------------------

_mail_host = env.text("EMAIL_HOST", "")
_mail_tls = env.choice("EMAIL_TLS", "starttls", ("starttls", "tls", "none"))
MAILERS: dict[str, dict[str, object]] = {}  # empty: nothing is sent, and the pages say so
SILENCED_SYSTEM_CHECKS = ["mail.W001"]  # which wants a mail server; a portal without one is complete
DEFAULT_FROM_EMAIL = env.text("EMAIL_FROM", "")
if _mail_host:
    if "@" not in DEFAULT_FROM_EMAIL or not DEFAULT_FROM_EMAIL.isprintable():
        raise ImproperlyConfigured("EMAIL_HOST needs EMAIL_FROM, such as Example <invitations@vendor.example>")
    if _mail_tls == "none" and _mail_host not in {"localhost", "127.0.0.1", "::1"}:
        raise ImproperlyConfigured("EMAIL_TLS=none is for a relay on this machine: links would travel readable")
    MAILERS["default"] = {
        "BACKEND": "django.core.mail.backends.smtp.EmailBackend",
        "OPTIONS": {
            "host": _mail_host,
            "port": env.number("EMAIL_PORT", {"starttls": 587, "tls": 465, "none": 25}[_mail_tls], maximum=65535),
            "username": env.text("EMAIL_USER", ""),
            "password": env.text("EMAIL_PASSWORD", ""),
            "use_tls": _mail_tls == "starttls",
            "use_ssl": _mail_tls == "tls",
            "timeout": 10,
        },
    }
elif TEST_ENDPOINTS:  # beside a sandbox no mail leaves: it is printed
    MAILERS["default"] = {"BACKEND": "django.core.mail.backends.console.EmailBackend"}
    DEFAULT_FROM_EMAIL = DEFAULT_FROM_EMAIL or "invitations@vendor.example"

ALERT_EMAIL = env.words("ALERT_EMAIL", ())  # who gets mail about incidents
if not all("@" in one and one.isprintable() for one in ALERT_EMAIL):
    raise ImproperlyConfigured("ALERT_EMAIL takes mail addresses, separated by commas")

# --- Microsoft ----------------------------------------------------------------------------------------------------

CLOUDS = local_clouds(TEST_ENDPOINTS, TEST_SIGN_IN_PORT) if TEST_ENDPOINTS else MICROSOFT
OUTGOING_CA_FILE = TEST_CA_FILE or env.text("OUTGOING_CA_FILE", "")  # for networks that inspect TLS
OUTGOING_PROXY = env.text("OUTGOING_PROXY", "")
# From which addresses we call, for partners whose policies name them; only told, never used.
OUTGOING_ADDRESSES = env.networks("OUTGOING_ADDRESSES")

# The delegated permissions that may be granted in customer tenants, as resourceAppId/scope; a wider request is
# refused before any call (S-52).
CONSENT_GRANT_ALLOW_LIST = env.words(
    "CONSENT_GRANT_ALLOW_LIST",
    (
        "00000003-0000-0000-c000-000000000000/User.Read",
        "00000003-0000-0000-c000-000000000000/User.Read.All",
        "00000003-0000-0000-c000-000000000000/Directory.Read.All",
        "00000003-0000-0000-c000-000000000000/Application.Read.All",
        "00000003-0000-0000-c000-000000000000/Organization.Read.All",
    ),
)
# Roles, as template ids, that may consent in customer tenants: Cloud Application Administrator, Application
# Administrator, Global Administrator. Source: Partner Center, "GDAP and the Secure Application Model".
GDAP_ACCEPTED_ROLES = env.guids(
    "GDAP_ACCEPTED_ROLES",
    (
        "158c047a-c907-4556-b7ef-446551a6b5f7",
        "9b895d92-2cd3-44c7-9d02-a6ac2d5ea5c3",
        "62e90394-69f5-4237-9190-012177145e10",
    ),
)
LINK_LIFETIME_DAYS = env.number("LINK_LIFETIME_DAYS", 14, minimum=1, maximum=90)  # then a leaked link is useless (S-01)
# A rotated refresh token is saved when the stored one is older; 0 saves each, for services that rotate strictly.
# Entra keeps a used token valid for its 90 days, and Key Vault keeps each version for ever: so it is saved weekly.
TOKEN_SAVE_AFTER_HOURS = env.number("TOKEN_SAVE_AFTER_HOURS", 168, maximum=720)

# Calls a second of all processes together, for each application and cloud, each partner, and each vault.
# Microsoft documents 50 consents a second; the rest is ours to choose.
CONSENT_RATE = env.number("CONSENT_RATE", 45, minimum=1, maximum=50)
CALL_RATE = env.number("CALL_RATE", 200, minimum=1, maximum=10_000)
PARTNER_RATE = env.number("PARTNER_RATE", 5, minimum=1, maximum=1000)
VAULT_RATE = env.number("VAULT_RATE", 300, minimum=1, maximum=400)
# Tokens are checked so often, and renewed and saved before they are so many days old.
TOKEN_CHECK_HOURS = env.number("TOKEN_CHECK_HOURS", 24, minimum=1, maximum=720)
TOKEN_RENEW_DAYS = env.number("TOKEN_RENEW_DAYS", 30, minimum=2, maximum=59)

# How long the ledger says which tokens were given out, for what and by whom; a partner may ask that late.
TOKEN_USE_KEPT_DAYS = env.number("TOKEN_USE_KEPT_DAYS", 180, minimum=30, maximum=3650)

# The embedded vault removes versions that were switched off so long ago.
VAULT_OLD_KEPT_DAYS = env.number("VAULT_OLD_KEPT_DAYS", 30, minimum=7, maximum=3650)

# The same failure of so many partners at least, and of so many in a hundred, that were well before is a question to us:
# the run stops and no partner is blamed.
SAME_CAUSE_FEWEST = env.number("SAME_CAUSE_FEWEST", 3, minimum=2, maximum=1000)
SAME_CAUSE_PERCENT = env.number("SAME_CAUSE_PERCENT", 90, minimum=51, maximum=100)

# --- the end of the audit trail -------------------------------------------------------------------------------------

# Where its newest entry is written down every 15 minutes, outside the database (S-57); and who else is told.
AUDIT_ANCHOR_FILE = env.text("AUDIT_ANCHOR_FILE", str(_local / "audit-anchors.jsonl"))
AUDIT_ANCHOR_SYSLOG = env.text("AUDIT_ANCHOR_SYSLOG", "")
if AUDIT_ANCHOR_SYSLOG and not fullmatch(r"/.+|(udp|tcp|tls)://[A-Za-z0-9.-]+:[0-9]{1,5}", AUDIT_ANCHOR_SYSLOG):
    raise ImproperlyConfigured("AUDIT_ANCHOR_SYSLOG must look like tls://syslog.example.com:6514 or /dev/log")
_anchor_url = env.text("AUDIT_ANCHOR_URL", "")
if _anchor_url and not (_anchor_url.startswith("https://") and urlsplit(_anchor_url).hostname):
    raise ImproperlyConfigured("AUDIT_ANCHOR_URL must be an https address")
AUDIT_ANCHOR_URL = Secret(_anchor_url) if _anchor_url else None  # the addresses of most receivers hold a key
# --- staff: who signs in, and how (S-46) ----------------------------------------------------------------------------

# Lets an account without a factor sign in with its password alone; `check --deploy` fails when it is set.
STAFF_PASSWORD_ALONE = env.flag("STAFF_PASSWORD_ALONE")

# The organisation's own sign-in service. At Entra, of the global cloud, its tenant is enough; any other provider is
# named by its issuer, exactly as its tokens write it.
_staff_tenant = env.text("STAFF_OIDC_TENANT", "")
_staff_issuer = env.text("STAFF_OIDC_ISSUER", "")
STAFF_OIDC_CLIENT_ID = env.text("STAFF_OIDC_CLIENT_ID", "")
STAFF_OIDC_CREDENTIAL = Secret(env.text("STAFF_OIDC_CREDENTIAL", ""))
if _staff_tenant:
    if _staff_issuer:
        raise ImproperlyConfigured("Set STAFF_OIDC_TENANT or STAFF_OIDC_ISSUER, not both")
    if not (_canonical := canonical_guid(_staff_tenant)):
        raise ImproperlyConfigured("STAFF_OIDC_TENANT takes the id of your own tenant, a GUID")
    _staff_issuer = f"{CLOUDS['global'].authority}/{_canonical}/v2.0"
STAFF_OIDC_ISSUER = _staff_issuer
if STAFF_OIDC_ISSUER:
    _parts = urlsplit(STAFF_OIDC_ISSUER)
    if _parts.scheme != "https" or not _parts.hostname or _parts.query or _parts.fragment:
        raise ImproperlyConfigured("STAFF_OIDC_ISSUER must look like https://login.example.com/path")
    if not STAFF_OIDC_CLIENT_ID or not STAFF_OIDC_CREDENTIAL:
        raise ImproperlyConfigured(
            "A sign-in service needs STAFF_OIDC_CLIENT_ID and STAFF_OIDC_CREDENTIAL (or STAFF_OIDC_CREDENTIAL_FILE)"
        )
# The claim that proves a second factor. Entra's version 2.0 tokens have no amr; there it is an authentication context.
STAFF_OIDC_DEMAND_MFA = env.text("STAFF_OIDC_DEMAND_MFA", "acrs=c1" if _staff_tenant else "amr=mfa")
if STAFF_OIDC_DEMAND_MFA != "none" and not all(STAFF_OIDC_DEMAND_MFA.partition("=")):
    raise ImproperlyConfigured("STAFF_OIDC_DEMAND_MFA takes a claim and its value, such as amr=mfa, or none")
# Roles of the portal by what the claims roles and groups say: value=role, separated by commas.
STAFF_OIDC_ROLES = dict(word.partition("=")[::2] for word in env.words("STAFF_OIDC_ROLES", ()))
if STAFF_OIDC_ISSUER and not (STAFF_OIDC_ROLES and all(STAFF_OIDC_ROLES) and all(STAFF_OIDC_ROLES.values())):
    raise ImproperlyConfigured("STAFF_OIDC_ROLES takes pairs such as Portal.Operator=operator, separated by commas")

# --- vault --------------------------------------------------------------------------------------------------------

# A directory for the embedded vault, or the https address of an Azure Key Vault.
VAULT_URL = env.text("VAULT_URL", str(_local / "vault"))
VAULT_KEY_FILE = env.text("VAULT_KEY_FILE", str(_local / "vault-key"))
VAULT_IDENTITY = env.choice("VAULT_IDENTITY", "managed-identity", ("managed-identity", "client-secret", "certificate"))
VAULT_CLOUD = env.text("VAULT_CLOUD", "global")
try:
    get_cloud(VAULT_CLOUD)
except UnknownCloud as reason:
    raise ImproperlyConfigured(f"VAULT_CLOUD: {reason}") from None
VAULT_TENANT_ID = env.text("VAULT_TENANT_ID", "")
VAULT_CLIENT_ID = env.text("VAULT_CLIENT_ID", "")
VAULT_CREDENTIAL_FILE = env.text("VAULT_CREDENTIAL_FILE", "")
# Other identities for what needs more than Get and Set: "client id" or "client id,credential file" (S-40).
VAULT_RECONCILE_IDENTITY = env.text("VAULT_RECONCILE_IDENTITY", "")
VAULT_ERASE_IDENTITY = env.text("VAULT_ERASE_IDENTITY", "")
# For each home tenant of registrations an identity with Application.Read.All there, which compares them daily with what
# we want: client id and file by tenant id. Without a file it is a managed identity of this host.
READERS = readers(
    [env.text("READER_TENANT_ID", ""), env.text("READER_CLIENT_ID", ""), env.text("READER_CREDENTIAL_FILE", "")],
    env.text("MORE_READERS", ""),
)
# Files with keys in them, for `check --deploy`, which looks at who may read them (S-71).
_READER_FILES = [file for _, file in READERS.values()]
KEY_FILES = [Path(file) for file in (*env.files, VAULT_KEY_FILE, VAULT_CREDENTIAL_FILE, *_READER_FILES) if file]

# --- Django -------------------------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "portal.site",
    "portal.site.apps.PortalAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "portal",
    "portal.audit",
    "portal.incidents",
    "portal.decisions",
    "portal.runs",
    "portal.staff",
    "portal.staff.library.LibraryAccountConfig",
    "portal.staff.library.LibraryFactorConfig",
    "portal.runs.queue.QueueConfig",
    "tenants",
    "consent",
]
MIDDLEWARE = [
    # The first two also dress answers that the others give themselves, such as a refused host.
    "django.middleware.csp.ContentSecurityPolicyMiddleware",
    "portal.site.middleware.SecurityHeadersMiddleware",
    "portal.site.health.HealthMiddleware",  # a monitor asks any host name, without https and without a database
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "portal.site.middleware.HostBindingMiddleware",
    "portal.site.limits.LimitMiddleware",  # before everything that reads the database
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "portal.site.middleware.StaffSessionMiddleware",
    "portal.staff.middleware.ProvenSessionMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "portal.site.refusals.RefusalMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",  # which the table of factors insists on
]
ROOT_URLCONF = "portal.urls"
WSGI_APPLICATION = "portal.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
            "libraries": {"shown": "portal.site.shown"},
        },
    }
]

DATABASES = {"default": env.database("DATABASE_URL", f"sqlite:///{_local / 'db.sqlite3'}")}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # without these a second writer fails at once with "database is locked".
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA foreign_keys=ON;",
    }
else:
    # A restart of the database is noticed before a connection is used.
    DATABASES["default"] |= {"CONN_MAX_AGE": 60, "CONN_HEALTH_CHECKS": True}
    # PostgreSQL compiles a statement that it takes for dear, which takes many times as long as the statement itself. It
    # also starts further processes for it, for which a list waits now and then.
    _options: Any = DATABASES["default"].get("OPTIONS", {})
    DATABASES["default"]["OPTIONS"] = {"options": "-c jit=off -c max_parallel_workers_per_gather=0", **_options}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
# Background work: a queue in our own database, or Celery where it runs already. Celery has workers of its own, so the
# portal's then only keep the schedule (`worker --schedule-only`). The broker's address may hold a password.
_celery_broker = env.text("CELERY_BROKER_URL", "")
CELERY_BROKER = Secret(_celery_broker)
TASKS: dict[str, dict[str, object]] = {
    "default": {
        "BACKEND": "dj_queue.backend.DjQueueBackend",
        "OPTIONS": {
            "mode": "async",
            # No message lies ready behind a long run of one worker while another has nothing to do.
            "workers": [{"threads": 2, "prefetch_multiplier": 1, "polling_interval": 1.0}],
            "dispatchers": [{"polling_interval": 5.0}],
            "process_heartbeat_interval": 10,
            "process_alive_threshold": 60,
            "shutdown_timeout": 28,  # longer than a polite stop takes, and shorter than the 30 seconds of R-28
            "preserve_finished_jobs": False,
            "listen_notify": False,
        },
    }
}
if _celery_broker:
    TASKS["default"] = {
        "BACKEND": "django_tasks_celery.CeleryBackend",
        "OPTIONS": {"CELERY_APP": "portal.runs.celery.app"},
    }
    # Both are about results of messages, which are never read: what became of a run stands in its rows.
    SILENCED_SYSTEM_CHECKS += ["django_tasks_celery.W001", "django_tasks_celery.W002"]
# Django's caches unpickle what they read. Nothing of ours uses one, and what a package puts there is forgotten at once.
CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
FORMAT_MODULE_PATH = ["portal.site.formats"]
USE_TZ = True
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "static-collected"
# The demo serves static files as they lie in the source; a deployment runs collectstatic and serves hashed names.
_static_from_source = env.flag("SERVE_STATIC_FROM_SOURCE")
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},  # nothing that is uploaded is kept
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if _static_from_source
        else "whitenoise.storage.CompressedManifestStaticFilesStorage"
    },
}
WHITENOISE_ALLOW_ALL_ORIGINS = False
WHITENOISE_USE_FINDERS = WHITENOISE_AUTOREFRESH = _static_from_source
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
LOGGING_CONFIG = "logging.config.dictConfig"
LOGGING = logging_config(
    json=env.choice("LOG_FORMAT", "json", ("json", "console")) == "json",
    level=env.choice("LOG_LEVEL", "INFO", _LEVELS),
)

# --- web hardening ------------------------------------------------------------------------------------------------

LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 14}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
# django-allauth keeps the factors of staff; its pages are not routed, and its limits would need a cache.
MFA_ADAPTER = "portal.staff.factor_keys.FactorAdapter"
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_TOTP_TOLERANCE = 1  # periods of 30 seconds that a phone's clock may be off
MFA_RECOVERY_CODE_COUNT = 10
MFA_RECOVERY_CODE_DIGITS = 10
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_RATE_LIMITS = False
SECURE_CSP = SITE_POLICY
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
SECURE_REFERRER_POLICY = "same-origin"  # S-22; no-referrer would turn each form post into "Origin: null"
SECURE_SSL_REDIRECT = not _local_demo
SECURE_HSTS_SECONDS = env.number("SECURE_HSTS_SECONDS", 31_536_000)
SECURE_HSTS_INCLUDE_SUBDOMAINS = True
SECURE_HSTS_PRELOAD = True
if env.flag("BEHIND_TLS_PROXY"):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
USE_X_FORWARDED_HOST = False
X_FRAME_OPTIONS = "DENY"
SESSION_ENGINE = "portal.site.sessions"
SESSION_COOKIE_NAME = "__Host-sessionid"  # S-62: the prefix keeps sibling hosts from planting cookies
SESSION_COOKIE_SECURE = True
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 12 * 3600
SESSION_EXPIRE_AT_BROWSER_CLOSE = True
CSRF_FAILURE_VIEW = "portal.site.errors.form_refused"
CSRF_COOKIE_NAME = "__Host-csrftoken"
CSRF_COOKIE_SECURE = True
CSRF_COOKIE_HTTPONLY = True
CSRF_COOKIE_SAMESITE = "Lax"
DATA_UPLOAD_MAX_MEMORY_SIZE = 2_500_000
# What people upload may hold a private key: it stays in memory, and a file that is too large for that is not taken.
FILE_UPLOAD_HANDLERS = ["django.core.files.uploadhandler.MemoryFileUploadHandler"]
FILE_UPLOAD_MAX_MEMORY_SIZE = DATA_UPLOAD_MAX_MEMORY_SIZE
DATA_UPLOAD_MAX_NUMBER_FIELDS = 5_000
DEFAULT_EXCEPTION_REPORTER = "portal.site.reports.StrictReporter"
DEFAULT_EXCEPTION_REPORTER_FILTER = "portal.site.reports.StrictReporterFilter"
