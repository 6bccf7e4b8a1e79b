import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("runs", "0003_plain_words")]

    operations = [
        migrations.AddField(
            model_name="run",
            name="origin",
            field=models.ForeignKey(
                help_text="Whose failed units it repeats",
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="repeats",
                to="runs.run",
            ),
        ),
        migrations.AddField(
            model_name="scheduledjob", name="last_finished_at", field=models.DateTimeField(null=True)
        ),
        migrations.AddField(
            model_name="scheduledjob", name="last_failed", field=models.BooleanField(default=False)
        ),
        migrations.AlterModelOptions(
            name="scheduledjob",
            options={
                "default_permissions": ("view",),
                "ordering": ["name"],
                "permissions": [("start_scheduledjob", "Can start a job of the schedule before its time")],
                "verbose_name": "scheduled job",
            },
        ),
    ]
