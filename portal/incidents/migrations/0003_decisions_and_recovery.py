"""Put off, notes and recovery. What was settled before is over: no recovery is told for it."""

from typing import Any

import django.db.models.deletion
from django.db import migrations, models


def old_ones_are_over(apps: Any, schema_editor: Any) -> None:
    settled = apps.get_model("incidents", "Incident").objects.filter(settled_at__isnull=False)
    settled.update(recovered_at=models.F("settled_at"))


class Migration(migrations.Migration):
    dependencies = [("incidents", "0002_incident_name")]

    operations = [
        migrations.AddField(
            model_name="incident",
            name="snoozed_until",
            field=models.DateTimeField(null=True, verbose_name="put off until"),
        ),
        migrations.AddField(
            model_name="incident",
            name="snoozed_by",
            field=models.CharField(blank=True, default="", max_length=150, verbose_name="put off by"),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="incident",
            name="recovered_at",
            field=models.DateTimeField(null=True, verbose_name="recovery noted at"),
        ),
        migrations.AddField(
            model_name="incident",
            name="came_back",
            field=models.PositiveIntegerField(
                default=0, help_text="How often it was settled and happened again at once"
            ),
        ),
        migrations.RemoveField(model_name="incident", name="times_mailed"),
        migrations.CreateModel(
            name="IncidentNote",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("at", models.DateTimeField(auto_now_add=True)),
                ("by", models.CharField(max_length=150)),
                ("words", models.CharField(max_length=1000, verbose_name="note")),
                (
                    "incident",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="notes", to="incidents.incident"
                    ),
                ),
            ],
            options={"ordering": ["-at", "-pk"]},
        ),
        migrations.RunPython(old_ones_are_over, migrations.RunPython.noop),
    ]
