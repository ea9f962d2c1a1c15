"""Django's own WSGI application, for deployments without websockets and as one way into ASGI."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sentinel_site.settings")

application = get_wsgi_application()
