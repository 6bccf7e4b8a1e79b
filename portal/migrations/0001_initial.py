from typing import Any

from django.core.management import call_command
from django.db import migrations, models

CACHE_TABLE = "portal_cache"


def create_cache_table(apps: Any, schema_editor: Any) -> None:
    call_command("createcachetable", CACHE_TABLE, database=schema_editor.connection.alias, verbosity=0)


def drop_cache_table(apps: Any, schema_editor: Any) -> None:
    schema_editor.execute(f"DROP TABLE {schema_editor.quote_name(CACHE_TABLE)}")


class Migration(migrations.Migration):
    initial = True

    dependencies: list[tuple[str, str]] = []

    operations = [
        migrations.CreateModel(
            name="RequestCount",
            fields=[
                (
                    "key",
                    models.CharField(
                        help_text="HMAC of rule, window, address and link",
                        max_length=32,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("hits", models.PositiveIntegerField()),
                (
                    "ends_at",
                    models.BigIntegerField(db_index=True, help_text="End of the window, in seconds since 1970"),
                ),
            ],
            options={"verbose_name": "request count", "default_permissions": ()},
        ),
        migrations.RunPython(create_cache_table, drop_cache_table),
    ]
