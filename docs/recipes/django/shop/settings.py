"""Settings: those that any project has, and where the cluster is."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

COTERIE_ENDPOINTS = os.environ["COTERIE_ENDPOINTS"]
# How long a request waits for a lock that another has.
LOCK_WAIT = "5s"

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("SHOP_DATABASE", BASE_DIR / "shop.db"),
        # A transaction takes the right to write when it begins, and waits for it.
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 30},
    }
}
INSTALLED_APPS = ["shop"]
MIDDLEWARE = ["shop.coordination.TellRefusals"]
ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"
ALLOWED_HOSTS = ["127.0.0.1"]
SECRET_KEY = os.environ.get("SHOP_SECRET", "for trying it out only")
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
