from django.db import migrations, models
from django.db.models.functions import Now

FORMER = ["customer_push", "consent_remove"]
REASON = "An update of the portal ended it: pushes and removals are plans now. Give the command or action again."


def cancel_former_runs(apps, schema_editor):
    """Nothing works these kinds any more, so nothing may wait for them. An offboarding then waits for a person."""
    runs = apps.get_model("runs", "Run").objects.using(schema_editor.connection.alias)
    unfinished = runs.filter(kind__in=FORMER, state__in=["open", "paused", "stopped"])
    unfinished.update(state="cancelled", finished_at=Now(), resume_at=None, reason=REASON)


class Migration(migrations.Migration):
    dependencies = [
        ("consent", "0010_daily_figures"),
        ("runs", "0003_plain_words"),
    ]

    operations = [
        migrations.AlterField(
            model_name="consentplan",
            name="purpose",
            field=models.CharField(
                choices=[
                    ("apply", "Bring the wanted grants"),
                    ("push", "Bring the wanted grants where none is"),
                    ("remove", "Remove the consent"),
                    ("undo", "Undo an earlier plan"),
                ],
                default="apply",
                max_length=6,
            ),
        ),
        migrations.RunPython(cancel_former_runs, migrations.RunPython.noop, elidable=True),
    ]
