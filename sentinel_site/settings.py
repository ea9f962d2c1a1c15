"""Django's settings; what an installation may choose comes from `environment`."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import parse_qsl, unquote, urlsplit

from csp.constants import NONE, SELF
from kombu import Queue

from sentinel_site import environment, logs

ENV = environment.read()
BASE_DIR = environment.REPOSITORY

SECRET_KEY = ENV.secret_key
KEY_PEPPER = ENV.key_pepper
DEBUG = ENV.debug
ALLOWED_HOSTS = ENV.hosts
PUBLIC_URL = ENV.public_url
STATE_DIR = ENV.state_dir
AGENT_PACKAGES = ENV.agent_packages
HTTPS = PUBLIC_URL.startswith("https://")

# -- apps and tenancy ---------------------------------------------------------

SHARED_APPS = [
    "django_tenants",
    "sentinel_site.apps.SiteConfig",
    "sentinel_site.kit",
    "accounts",
    "metrics",
    "plugins_registry",
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.humanize",  # in templates of allauth's
    "sentinel_site.apps.StaticFiles",
    "django.contrib.postgres",
    "accounts.admin_apps.AdminConfig",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "channels",
    "anymail",
    "django_htmx",
    "csp",
]
TENANT_APPS = ["clouds", "alerts"]
INSTALLED_APPS = SHARED_APPS + TENANT_APPS

TENANT_MODEL = "accounts.Tenant"
TENANT_DOMAIN_MODEL = "accounts.Domain"
TENANT_LIMIT_SET_CALLS = True
ROOT_URLCONF = "sentinel_site.urls"
PUBLIC_SCHEMA_URLCONF = "sentinel_site.urls_public"
DATABASE_ROUTERS = ["django_tenants.routers.TenantSyncRouter"]
AUTH_USER_MODEL = "accounts.User"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# -- requests -----------------------------------------------------------------

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "sentinel_site.logs.RequestLogMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "accounts.middleware.TenantMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "sentinel_site.kit.problems.ProblemMiddleware",
]
APPEND_SLASH = False  # a redirect turns an agent's POST into a GET
WSGI_APPLICATION = "sentinel_site.wsgi.application"
ASGI_APPLICATION = "sentinel_site.asgi.application"

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
                "alerts.pages.shell.shell",
            ],
        },
    }
]

# -- databases ----------------------------------------------------------------

_database = urlsplit(ENV.database_url)
DATABASES = {
    "default": {
        "ENGINE": "django_tenants.postgresql_backend",
        "NAME": _database.path.lstrip("/"),
        "USER": unquote(_database.username or ""),
        "PASSWORD": unquote(_database.password or ""),
        "HOST": _database.hostname or "",
        "PORT": str(_database.port or ""),
        "CONN_MAX_AGE": 600,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {"connect_timeout": 5, **dict(parse_qsl(_database.query))},
    }
}
METRICS_URL = ENV.metrics_url
RETENTION_RAW = timedelta(days=ENV.retention_raw_days)
RETENTION_EVENTS = timedelta(days=ENV.retention_events_days)
RETENTION_INCIDENTS = timedelta(days=ENV.retention_incidents_days)
#: Of other people's tools, in one process, from one organization.
ALERTS_PER_MINUTE = ENV.alerts_per_minute
COMMIT_QUEUE = ENV.commit_queue
COMMIT_INLINE = ENV.environment == "test"

REDIS_URL = ENV.redis_url
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": ENV.redis_url,
        "KEY_PREFIX": "sentinella",
        "OPTIONS": {"socket_connect_timeout": 2, "socket_timeout": 2},
    }
}
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [ENV.redis_url], "prefix": "sentinella"},
    }
}

# -- accounts -----------------------------------------------------------------

AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
LOGIN_URL = "/login/"
LOGIN_REDIRECT_URL = "/home/"
ACCOUNT_ADAPTER = "accounts.adapter.AccountAdapter"
ACCOUNT_FORMS = {"signup": "accounts.forms.SignupForm"}
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*"]
ACCOUNT_EMAIL_VERIFICATION = "mandatory"
ACCOUNT_CONFIRM_EMAIL_ON_GET = False
ACCOUNT_LOGIN_ON_EMAIL_CONFIRMATION = True
ACCOUNT_LOGOUT_REDIRECT_URL = "/"
ACCOUNT_EMAIL_SUBJECT_PREFIX = ""
ACCOUNT_DEFAULT_HTTP_PROTOCOL = "https" if HTTPS else "http"
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_WEBAUTHN_ALLOW_INSECURE_ORIGIN = not HTTPS
MFA_TOTP_ISSUER = "Sentinella"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
if ENV.environment == "test":
    PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

# -- mail ---------------------------------------------------------------------

_mail = urlsplit(ENV.email_url)
EMAIL_BACKEND = ENV.email_backend or (
    "django.core.mail.backends.smtp.EmailBackend"
    if _mail.scheme.startswith("smtp")
    else "anymail.backends.console.EmailBackend"
)
EMAIL_HOST = _mail.hostname or "localhost"
EMAIL_PORT = _mail.port or {"smtps": 465, "smtp+tls": 587}.get(_mail.scheme, 25)
EMAIL_HOST_USER = unquote(_mail.username or "")
EMAIL_HOST_PASSWORD = unquote(_mail.password or "")
EMAIL_USE_SSL = _mail.scheme == "smtps"
EMAIL_USE_TLS = _mail.scheme == "smtp+tls"
EMAIL_TIMEOUT = 10
ANYMAIL = {"REQUESTS_TIMEOUT": EMAIL_TIMEOUT, **ENV.anymail}  # a lease is longer than a try
SLACK_API = "https://slack.com/api/"
OUTGOING_PRIVATE_NETWORKS = ENV.private_networks
DEFAULT_FROM_EMAIL = ENV.default_from_email
SERVER_EMAIL = ENV.default_from_email
OPERATOR_EMAIL = [one.strip() for one in ENV.operator_email.split(",") if one.strip()]

# -- tasks --------------------------------------------------------------------

CELERY_BROKER_URL = ENV.broker_url
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_DB_REUSE_MAX = 1000
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_BEAT_SCHEDULE_FILENAME = str(STATE_DIR / "beat-schedule")
TICK = timedelta(seconds=ENV.tick_seconds)
CELERY_TASK_QUEUES = [Queue("celery"), Queue("notify")]  # a worker without -Q takes from both
CELERY_TASK_DEFAULT_QUEUE = "celery"
CELERY_TASK_ROUTES = {"alerts.tasks.notify": {"queue": "notify"}}  # a slow webhook delays no rule
CELERY_BEAT_SCHEDULE = {
    "evaluate": {
        "task": "alerts.tasks.evaluate_due",
        "schedule": TICK,
        "options": {"expires": 60},
    },
    "tidy": {
        "task": "accounts.tasks.tidy",
        "schedule": timedelta(hours=6),
        "options": {"expires": 1800},
    },
    "keep-evidence": {
        "task": "alerts.tasks.keep_evidence",
        "schedule": timedelta(hours=1),
        "options": {"expires": 1800},
    },
    "tidy-alerts": {
        "task": "alerts.tasks.tidy",
        "schedule": timedelta(hours=12),
        "options": {"expires": 1800},
    },
    "trim-alerts": {
        "task": "alerts.tasks.trim",
        "schedule": timedelta(minutes=10),
        "options": {"expires": 300},
    },
    "canary": {
        "task": "alerts.tasks.fly_canary",
        "schedule": timedelta(minutes=1),
        "options": {"expires": 30},
    },
    "forget": {
        "task": "clouds.tasks.forget",
        "schedule": timedelta(hours=24),
        "options": {"expires": 3600},
    },
    "expire": {
        "task": "metrics.tasks.expire",
        "schedule": timedelta(hours=1),
        "options": {"expires": 1800},
    },
}

# -- API ----------------------------------------------------------------------

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["accounts.api.auth.AccessAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["accounts.api.auth.AtLeastViewer"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["sentinel_site.kit.api.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "sentinel_site.kit.api.exception_handler",
    "UNAUTHENTICATED_USER": None,
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "DEFAULT_GENERATOR_CLASS": "sentinel_site.openapi.Generator",
    "TITLE": "Sentinella API",
    "DESCRIPTION": "Everything a page can do. Errors are RFC 9457 problem documents.",
    "VERSION": "1",
    "ENUM_NAME_OVERRIDES": {
        "SeverityEnum": "alerts.models.Severity",
        "SuppressionKindEnum": "clouds.models.Suppression.Kind",
    },
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": r"/o/\{organization\}/api/v1|/api/v1",
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
}

# -- security -----------------------------------------------------------------

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "object-src": [NONE],
        "base-uri": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
    }
}
CSRF_TRUSTED_ORIGINS = [PUBLIC_URL]
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CONTENT_TYPE_NOSNIFF = True
X_FRAME_OPTIONS = "DENY"
if HTTPS:
    SECURE_SSL_REDIRECT = True
    # the original agents follow no redirect, and balancers ask for health by plain HTTP
    SECURE_REDIRECT_EXEMPT = [r"^/*(metrics|logs)/*$", r"^(healthz|readyz)$"]
    SECURE_HSTS_SECONDS = 31_536_000
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True
    LANGUAGE_COOKIE_SECURE = True
if ENV.trusted_proxies:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
DATA_UPLOAD_MAX_MEMORY_SIZE = 17 * 1024 * 1024

# -- files, words, logs -------------------------------------------------------

STATIC_URL = "/static/"
MEDIA_URL = "/media/"
STATIC_ROOT = STATE_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if ENV.environment == "test"
        else "whitenoise.storage.CompressedManifestStaticFilesStorage"
    },
}
WHITENOISE_MAX_AGE = 3600
WHITENOISE_KEEP_ONLY_HASHED_FILES = True
WHITENOISE_SKIP_COMPRESS_EXTENSIONS = (
    *("jpg", "jpeg", "png", "gif", "webp", "zip", "gz", "br", "woff", "woff2"),
    "map",  # large, and fetched by nobody but developers
)
WHITENOISE_USE_FINDERS = ENV.environment == "test"
WHITENOISE_AUTOREFRESH = ENV.environment == "test"  # look a file up when it is asked for

LANGUAGE_CODE = "en"
USE_I18N = False
TIME_ZONE = "UTC"
USE_TZ = True

LOGGING_CONFIG = None
logs.configure(ENV.log_format, ENV.log_level)
