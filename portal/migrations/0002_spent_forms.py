from typing import Any

from django.core.management import call_command
from django.db import migrations, models

CACHE_TABLE = "portal_cache"


def drop_cache_table(apps: Any, schema_editor: Any) -> None:
    schema_editor.execute(f"DROP TABLE {schema_editor.quote_name(CACHE_TABLE)}")


def create_cache_table(apps: Any, schema_editor: Any) -> None:
    call_command("createcachetable", CACHE_TABLE, database=schema_editor.connection.alias, verbosity=0)


class Migration(migrations.Migration):
    dependencies = [("portal", "0001_initial")]

    operations = [
        migrations.CreateModel(
            name="SpentForm",
            fields=[
                (
                    "number",
                    models.CharField(
                        help_text="Random, from the signed form", max_length=32, primary_key=True, serialize=False
                    ),
                ),
                (
                    "until",
                    models.DateTimeField(
                        db_index=True, help_text="No form of this number is accepted from then on"
                    ),
                ),
            ],
            options={"verbose_name": "spent form", "default_permissions": ()},
        ),
        migrations.RunPython(drop_cache_table, create_cache_table),
    ]
