"""Notes and putting off have permissions of their own. Those who had the one for both keep what they may do."""

from typing import Any

from django.db import migrations

NEW = [
    ("note_incident", "Can write a note to an incident"),
    ("snooze_incident", "Can put off an incident and wake it up"),
]


def give_to_those_who_may_settle(apps: Any, schema_editor: Any) -> None:
    permissions = apps.get_model("auth", "Permission").objects
    old = permissions.filter(content_type__app_label="incidents", codename="settle_incident").first()
    if old is None:
        return  # a new database: permissions are made after its migrations
    for codename, name in NEW:
        new, _ = permissions.get_or_create(
            content_type=old.content_type, codename=codename, defaults={"name": name}
        )
        new.group_set.add(*old.group_set.all())
        new.user_set.add(*old.user_set.all())


class Migration(migrations.Migration):
    dependencies = [
        ("incidents", "0003_decisions_and_recovery"),
        ("auth", "0012_alter_user_first_name_max_length"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="incident",
            options={
                "ordering": ["-last_seen_at", "-pk"],
                "permissions": [("settle_incident", "Can take up and settle an incident"), *NEW],
            },
        ),
        migrations.RunPython(give_to_those_who_may_settle, migrations.RunPython.noop),
    ]
