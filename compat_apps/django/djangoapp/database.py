"""Bring the database up to date and make the demonstration user, whoever starts first."""

from __future__ import annotations

import fcntl
from pathlib import Path

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

DEMONSTRATION_USER = "admin"
DEMONSTRATION_PASSWORD = "admin"


def prepare_database() -> None:
    """Apply the migrations that are missing, and make the user ``admin`` where there is none.

    Every worker process calls this; the lock lets one do the work while the others wait, then find nothing to do.
    """
    database = Path(settings.DATABASES["default"]["NAME"])
    database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with database.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_up_to_date():
            call_command("migrate", interactive=False, verbosity=0)
        make_demonstration_user()
    # A server may fork after loading the app, and SQLite connections do not survive a fork.
    connection.close()


def is_up_to_date() -> bool:
    """Whether every migration has been applied; much quicker than applying none of them."""
    executor = MigrationExecutor(connection)
    return not executor.migration_plan(executor.loader.graph.leaf_nodes())


def make_demonstration_user() -> None:
    """Make the superuser ``admin`` with the password ``admin``, unless there is a user of that name."""
    users = get_user_model().objects
    if not users.filter(username=DEMONSTRATION_USER).exists():
        users.create_superuser(DEMONSTRATION_USER, password=DEMONSTRATION_PASSWORD)
