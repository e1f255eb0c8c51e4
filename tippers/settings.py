"""Django settings. Values come from the environment (and `.env`), else from the home's stack.

Every variable is in the README's settings table with its default. A value that cannot be read
stops the start with the variable's name.
"""

import os
import sys
from datetime import timedelta
from pathlib import Path

import environ
from django.core.exceptions import ImproperlyConfigured

from tippers.embedded.home import home_path, read_stack

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()
env.read_env(BASE_DIR / ".env")

TIPPERS_HOME = home_path()
_stack = read_stack(TIPPERS_HOME)


def _positive_int(name: str, default: int) -> int:
    try:
        value = int(env.int(name, default=default))
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} must be a whole number") from error
    if value < 1:
        raise ImproperlyConfigured(f"{name} must be at least 1, not {value}")
    return value


def _multiple(name: str, default: float) -> float:
    try:
        value = float(env.float(name, default=default))
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} must be a number") from error
    if not 1 <= value < float("inf"):
        raise ImproperlyConfigured(f"{name} must be at least 1, not {value}")
    return value


def _flag(name: str, *, default: bool) -> bool:
    words = {"1": True, "on": True, "true": True, "yes": True}
    words |= {"0": False, "off": False, "false": False, "no": False, "": False}
    value = env.str(name, default="on" if default else "off").strip().lower()
    if value not in words:
        raise ImproperlyConfigured(f"{name} must be on or off, not {value!r}")
    return words[value]


def _from_stack(name: str) -> str:
    """The variable's value, else what the running or last stack of this home uses, else ''."""
    value = str(env.str(name, default=""))
    if value or _stack is None:
        return value
    return str(getattr(_stack, name.lower()) or "")


DEBUG = _flag("DEBUG", default=False)
HOST = env.str("HOST", default="127.0.0.1")
LOOPBACK = ("127.0.0.1", "localhost", "::1")

DATABASE_URL = _from_stack("DATABASE_URL")
TIPPERS_DB_URL = _from_stack("TIPPERS_DB_URL")
REDIS_URL = _from_stack("REDIS_URL")
# The embedded sessions database through its read-only role: what analysts' queries run as.
TIPPERS_READER_URL = (
    "" if os.environ.get("TIPPERS_DB_URL") or _stack is None else _stack.tippers_reader_url
)


def local_mode() -> bool:
    """The embedded PostgreSQL is in use and nobody but this machine can reach the web server.

    It relaxes four-eyes, the connection-host guard and the sandbox's refusal, and nothing else.
    """
    embedded = _stack is not None and DATABASE_URL == _stack.database_url != ""
    return embedded and HOST in LOOPBACK


LOCAL_MODE = local_mode()

SECRET_KEY = _from_stack("SECRET_KEY")
FERNET_KEYS: list[str] = [
    key for key in _from_stack("TIPPERS_ENCRYPTION_KEYS").replace(" ", "").split(",") if key
]
if not SECRET_KEY and DATABASE_URL:
    raise ImproperlyConfigured(
        "SECRET_KEY must be set to a long random string when DATABASE_URL is given"
    )
SECRET_KEY = SECRET_KEY or "only for commands that need no database"

DEFAULT_HOSTS = ["localhost", "127.0.0.1", "[::1]"]
# This machine may always ask: the supervisor and health checks do.
ALLOWED_HOSTS: list[str] = [*DEFAULT_HOSTS, HOST, *env.list("ALLOWED_HOSTS", default=[])]
CSRF_TRUSTED_ORIGINS: list[str] = env.list("CSRF_TRUSTED_ORIGINS", default=[])

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "rest_framework",
    "knox",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_celery_beat",
    "tippers.runs",
    "tippers",
    "connections",
    "concepts",
    "labeling",
    "occupancy",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "tippers.urls"
WSGI_APPLICATION = "tippers.wsgi.application"
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
            ]
        },
    }
]

DATABASES = {
    # Without a database (lint, help, `serve` before its first start) Django still needs an entry;
    # port 9 (discard) refuses at once when something does connect.
    "default": environ.Env.db_url_config(DATABASE_URL or "postgresql://nobody@127.0.0.1:9/none")
}
DATABASES["default"]["ENGINE"] = "django.db.backends.postgresql"
DATABASES["default"]["CONN_MAX_AGE"] = 60
DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
DATABASES["default"].setdefault("OPTIONS", {})["connect_timeout"] = 5
DATABASES["default"]["DISABLE_SERVER_SIDE_CURSORS"] = False
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

DATA_UPLOAD_MAX_MEMORY_SIZE = 2_621_440  # bytes of a body; a longer one is answered 413

USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en-us"
USE_I18N = False

STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
WHITENOISE_USE_FINDERS = True  # no collectstatic step between `make serve` and a styled page

S3_BUCKET_NAME = env.str("S3_BUCKET_NAME", default="")
if S3_BUCKET_NAME:
    _storage = {
        "BACKEND": "storages.backends.s3.S3Storage",
        "OPTIONS": {
            "bucket_name": S3_BUCKET_NAME,
            "region_name": env.str("AWS_DEFAULT_REGION", default="us-east-1"),
            "endpoint_url": env.str("AWS_ENDPOINT_URL", default="") or None,
            "file_overwrite": True,
            "default_acl": None,
        },
    }
else:
    _storage = {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": str(TIPPERS_HOME / "storage")},
    }
STORAGES = {
    "default": _storage,
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "/admin/login/"
SESSION_COOKIE_HTTPONLY = True
CSRF_COOKIE_HTTPONLY = False  # the browsable API reads it to sign its requests
X_FRAME_OPTIONS = "DENY"
SECURE_CONTENT_TYPE_NOSNIFF = True

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "knox.auth.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["tippers.access.ModelPermission"],
    "DEFAULT_PAGINATION_CLASS": "tippers.paging.SkipLimitPagination",
    "DEFAULT_SCHEMA_CLASS": "tippers.schema.Schema",
    "DEFAULT_RENDERER_CLASSES": [
        "rest_framework.renderers.JSONRenderer",
        "rest_framework.renderers.BrowsableAPIRenderer",
    ],
    "DEFAULT_PARSER_CLASSES": ["tippers.parsing.JSONParser"],
    "EXCEPTION_HANDLER": "tippers.api.exception_handler",
    "NUM_PROXIES": 0,  # a client could otherwise escape a throttle by X-Forwarded-For
    "DEFAULT_THROTTLE_RATES": {"login": "20/min"},
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
REST_KNOX = {
    "AUTH_HEADER_PREFIX": "Bearer",
    "TOKEN_TTL": timedelta(days=7),
    "TOKEN_LIMIT_PER_USER": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Tippers Services",
    "DESCRIPTION": "Labels without hand-labelling, and occupancy, from Wi-Fi sessions.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "SCHEMA_PATH_PREFIX": "/",
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_NAME_OVERRIDES": {
        "RunStatusEnum": "tippers.runs.models.RunStatus",
        "JobStatusEnum": "labeling.api.jobs.DOMAIN_STATUSES",
        "DatasetStatusEnum": "occupancy.models.Status",
    },
    "PREPROCESSING_HOOKS": ["tippers.schema.without_trailing_slashes"],
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "tippers.schema.with_errors_and_totals",
    ],
}

# The first start creates this user; without a password one is made up and printed once.
ADMIN_USER = env.str("TIPPERS_ADMIN_USER", default="admin")
ADMIN_PASSWORD = env.str("TIPPERS_ADMIN_PASSWORD", default="")

SOURCE_CHUNK_SENSOR_INTERVAL = timedelta(seconds=_positive_int("SOURCE_CHUNK_SENSOR_INTERVAL", 30))
OCCUPANCY_SETTLE = timedelta(hours=_positive_int("OCCUPANCY_SETTLE_HOURS", 24))
CHUNK_TIMEOUT_LOOKBACK = timedelta(days=_positive_int("CHUNK_TIMEOUT_LOOKBACK_DAYS", 30))
CHUNK_TIMEOUT_MULTIPLIER = _multiple("CHUNK_TIMEOUT_MULTIPLIER", 2.0)
CHUNK_TIMEOUT_MIN = timedelta(seconds=_positive_int("CHUNK_TIMEOUT_MIN_SECONDS", 300))
FOUR_EYES = _flag("TIPPERS_FOUR_EYES", default=not LOCAL_MODE)
ALLOWED_DB_NETWORKS: list[str] = env.list("ALLOWED_DB_NETWORKS", default=[])

CELERY_BROKER_URL = REDIS_URL or "redis://127.0.0.1:9/0"
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": 3600,
    "socket_keepalive": True,
    "socket_connect_timeout": 2,
    "socket_timeout": 30,
    "health_check_interval": 25,
    # Publishing tries once (measured: 1.8 s of retries otherwise, inside a request); a worker's own
    # reconnecting is not bound by this.
    "max_retries": 0,
}
# A message is a hint and the row is the truth: early acknowledgement loses nothing, and results
# in the broker would be a second truth.
CELERY_TASK_ACKS_LATE = False
CELERY_TASK_IGNORE_RESULT = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_DISABLE_PREFETCH = True
CELERY_WORKER_MAX_TASKS_PER_CHILD = 200
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = 30.0
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_SERIALIZER = "json"
CELERY_TIMEZONE = "UTC"
CELERY_TASK_DEFAULT_QUEUE = "short"
CELERY_TASK_PUBLISH_RETRY = False  # the sweep sends again; a request must not wait for the broker
CELERY_BEAT_SCHEDULER = "tippers.runs.beat:SingleScheduler"
DJANGO_CELERY_BEAT_TZ_AWARE = True

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(levelname)s %(name)s: %(message)s"}},
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "stream": sys.stderr, "formatter": "line"}
    },
    "root": {"handlers": ["stderr"], "level": env.str("LOG_LEVEL", default="INFO")},
    "loggers": {
        # The job table says what ran; a line per hint would drown what matters.
        "celery.worker.strategy": {"level": "WARNING"},
        "celery.app.trace": {"level": "WARNING"},
        "celery.beat": {"level": "WARNING"},
        "django_celery_beat": {"level": "WARNING"},
    },
}
